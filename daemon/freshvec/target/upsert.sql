-- staging: where a batch waits for the one statement that writes it
CREATE TEMPORARY TABLE IF NOT EXISTS {staging} (
  {k_text_columns}, embedding {vector_type}, content_hash bytea, fence bigint NOT NULL, encode_error text
) ON COMMIT DELETE ROWS

-- copy: fill the staging table
COPY {staging} FROM STDIN (FORMAT BINARY)

-- lock_shared: many may write at once
SELECT pg_advisory_xact_lock_shared({lock}, -{sync_id})

-- lock_exclusive: nobody else writes; a removal must see every write that could bring the row back
SELECT pg_advisory_xact_lock({lock}, -{sync_id})

-- upsert: write staged rows whose source row exists, unless a later read has been written
INSERT INTO {target} AS t ({keys}, embedding, content_hash, fingerprint, fence, encode_error)
SELECT {d_keys}, k.embedding, k.content_hash, %(fingerprint)s, k.fence, k.encode_error
  FROM {staging} AS k JOIN {source} AS d ON {d_is_k}
    ON CONFLICT ({keys}) DO UPDATE
   SET embedding = excluded.embedding, content_hash = excluded.content_hash, fingerprint = excluded.fingerprint,
       fence = excluded.fence, encode_error = excluded.encode_error, embedded_at = excluded.embedded_at
 WHERE t.fence < excluded.fence

-- touch: a row was read again and found unchanged: raise its fence, so that an older read cannot overwrite it
UPDATE {target} AS t SET fence = k.fence
  FROM unnest({key_params}, %(fences)s::bigint[], %(hashes)s::bytea[]) AS k ({k}, fence, content_hash)
 WHERE {t_is_k} AND t.fence < k.fence
   AND t.fingerprint = %(fingerprint)s AND t.content_hash IS NOT DISTINCT FROM k.content_hash

-- read_again: an older read was written between that reading and this touch: what was found unchanged is so no more
INSERT INTO {queue} (bulk, {k})
SELECT false, {k_typed} FROM unnest({key_params}, %(fences)s::bigint[]) AS k ({k}, fence)
 WHERE NOT EXISTS (SELECT FROM {target} AS t WHERE {t_is_k} AND t.fence >= k.fence)

-- remove: take away the embeddings of rows that are gone
DELETE FROM {target} AS t USING unnest({key_params}, %(fences)s::bigint[]) AS k ({k}, fence)
 WHERE {t_is_k} AND t.fence < k.fence AND NOT EXISTS (SELECT FROM {source} AS d WHERE {d_is_t})
