"""What answers over HTTP: embeddings."""
