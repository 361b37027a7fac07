-- copy: rows of which the target has nothing
COPY {target} ({keys}, embedding, content_hash, fingerprint, fence) FROM STDIN (FORMAT binary)
