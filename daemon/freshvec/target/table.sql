-- create: one row a source row: its embedding, and what it was made from
CREATE TABLE IF NOT EXISTS {target} (
  {key_columns_typed},
  embedding {vector_type},            -- NULL: the row has no text, or its text could not be encoded
  content_hash bytea,                 -- first 16 bytes of sha256 of the text; NULL: the row has no text
  fingerprint bytea NOT NULL,         -- of the model
  fence bigint NOT NULL,        -- the fence: only a later read may overwrite
  encode_error text,                  -- why the text could not be encoded
  embedded_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY ({keys})
)

-- create_view: embeddings of rows that exist; it names key columns alone, so no other column is pinned by it
CREATE OR REPLACE VIEW {view} AS
SELECT {t_keys}, t.embedding, t.embedded_at FROM {target} AS t JOIN {source} AS d ON {d_is_t} WHERE t.embedding IS NOT NULL

-- describe: type of the embedding column of an existing target, and whether the table is ours
SELECT format_type(a.atttypid, a.atttypmod), EXISTS (SELECT FROM pg_attribute o WHERE o.attrelid = c.oid AND o.attname = 'fence')
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

-- drop: take the view and the target away
DROP VIEW IF EXISTS {view};
DROP TABLE IF EXISTS {target};
DROP TABLE IF EXISTS {queue}
