-- create: one row a source row: its embedding, and what it was made from
CREATE TABLE IF NOT EXISTS {target} (
  {key_columns_typed},
  embedding {vector_type},            -- NULL: the row has no text, or its text could not be encoded
  content_hash bytea,                 -- first 16 bytes of sha256 of the text; NULL: the row has no text
  fingerprint bytea NOT NULL,         -- of the model
  write_token bigint NOT NULL,        -- the fence: only a later read may overwrite
  encode_error text,                  -- why the text could not be encoded
  embedded_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY ({keys})
)

-- create_view: embeddings of rows that exist; it names key columns alone, so no other column is pinned by it
CREATE OR REPLACE VIEW {view} AS
SELECT {t_keys}, t.embedding, t.embedded_at FROM {target} AS t JOIN {source} AS d ON {d_is_t} WHERE t.embedding IS NOT NULL

-- describe: type of the embedding column of an existing target, and whether the table is ours
SELECT format_type(a.atttypid, a.atttypmod), EXISTS (SELECT FROM pg_attribute o WHERE o.attrelid = c.oid AND o.attname = 'write_token')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding' AND NOT a.attisdropped
 WHERE n.nspname = %(schema)s AND c.relname = %(table)s

-- readers: roles that may read the source but not yet the target, PUBLIC as NULL
SELECT DISTINCT CASE WHEN acl.grantee = 0 THEN NULL ELSE pg_get_userbyid(acl.grantee) END
  FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS acl
  LEFT JOIN pg_class t ON t.oid = to_regclass(%(target)s)
 WHERE c.oid = %(oid)s::oid AND acl.privilege_type = 'SELECT' AND acl.grantee <> c.relowner
   AND NOT EXISTS (SELECT FROM aclexplode(t.relacl) AS has WHERE has.grantee = acl.grantee AND has.privilege_type = 'SELECT')

-- grant: who may read the source may read its embeddings
GRANT SELECT ON {target}, {view} TO {role}

-- grant_worker: what the daemon's role needs, and no more
GRANT SELECT ON {source} TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {target} TO {role};
GRANT SELECT, INSERT, DELETE ON {queue} TO {role}

-- staging: where a batch waits for the one statement that writes it
CREATE TEMPORARY TABLE IF NOT EXISTS {staging} (
  {k_text_columns}, embedding {vector_type}, content_hash bytea, write_token bigint NOT NULL, encode_error text
) ON COMMIT DELETE ROWS

-- copy: fill the staging table
COPY {staging} FROM STDIN (FORMAT BINARY)

-- lock_shared: many may write at once
SELECT pg_advisory_xact_lock_shared({lock}, -{sync_id})

-- lock_exclusive: nobody else writes; a removal must see every write that could bring the row back
SELECT pg_advisory_xact_lock({lock}, -{sync_id})

-- upsert: write staged rows whose source row exists, unless a later read has been written
INSERT INTO {target} AS t ({keys}, embedding, content_hash, fingerprint, write_token, encode_error)
SELECT {d_keys}, k.embedding, k.content_hash, %(fingerprint)s, k.write_token, k.encode_error
  FROM {staging} AS k JOIN {source} AS d ON {d_is_k}
    ON CONFLICT ({keys}) DO UPDATE
   SET embedding = excluded.embedding, content_hash = excluded.content_hash, fingerprint = excluded.fingerprint,
       write_token = excluded.write_token, encode_error = excluded.encode_error, embedded_at = excluded.embedded_at
 WHERE t.write_token < excluded.write_token

-- touch: a row was read again and found unchanged: raise its fence, so that an older read cannot overwrite it
UPDATE {target} AS t SET write_token = k.write_token
  FROM unnest({key_params}, %(tokens)s::bigint[], %(hashes)s::bytea[]) AS k ({k}, write_token, content_hash)
 WHERE {t_is_k} AND t.write_token < k.write_token
   AND t.fingerprint = %(fingerprint)s AND t.content_hash IS NOT DISTINCT FROM k.content_hash

-- read_again: an older read was written between that reading and this touch: what was found unchanged is so no more
INSERT INTO {queue} (bulk, {k})
SELECT false, {k_typed} FROM unnest({key_params}, %(tokens)s::bigint[]) AS k ({k}, write_token)
 WHERE NOT EXISTS (SELECT FROM {target} AS t WHERE {t_is_k} AND t.write_token >= k.write_token)

-- remove: take away the embeddings of rows that are gone
DELETE FROM {target} AS t USING unnest({key_params}, %(tokens)s::bigint[]) AS k ({k}, write_token)
 WHERE {t_is_k} AND t.write_token < k.write_token AND NOT EXISTS (SELECT FROM {source} AS d WHERE {d_is_t})

-- orphans: target rows of one page whose source row is gone, and the page's last key
WITH page AS (SELECT {t_keys} FROM {target} AS t {beyond} ORDER BY {t_keys} LIMIT %(limit)s)
SELECT {t_key_texts}, NOT EXISTS (SELECT FROM {source} AS d WHERE {d_is_t}) FROM page AS t ORDER BY {t_keys}

-- retry: let rows whose text could not be encoded be tried again
WITH failed AS (SELECT {t_keys} FROM {target} AS t WHERE encode_error IS NOT NULL)
INSERT INTO {queue} (bulk, {k}) SELECT true, {t_keys} FROM failed AS t

-- drop: take the view and the target away
DROP VIEW IF EXISTS {view};
DROP TABLE IF EXISTS {target};
DROP TABLE IF EXISTS {queue}
