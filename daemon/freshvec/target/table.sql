-- create: one row per source row that has a text: its embedding, or where that is in the source's own column
-- a digest of it, and what it was made from
CREATE TABLE IF NOT EXISTS {target} (
  {key_columns_typed},
  {kept_as} {kept_type},  -- NULL: the text could not be encoded, or the row is about to leave
  content_hash bytea,                 -- first 16 bytes of sha256 of the text
  fingerprint bytea NOT NULL,         -- of the model
  fence bigint NOT NULL,              -- only a later read may overwrite
  encode_error text,                  -- why the text could not be read or encoded
  embedded_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY ({keys})
)

-- create_function: the embeddings of rows that exist, of the applied model alone. As a function's text it
-- pins neither the table nor its columns against the application's own DDL, and Postgres inlines it, so that
-- an index is used.
CREATE OR REPLACE FUNCTION {embedded}()
  RETURNS TABLE ({view_columns}, embedding {vector_type}, embedded_at timestamptz)
LANGUAGE sql STABLE AS $freshvec$
SELECT {t_keys}, t.embedding, t.embedded_at FROM {shown_rows}
 WHERE {t_is_embedded} AND t.fingerprint = {fingerprint}
$freshvec$;
GRANT EXECUTE ON FUNCTION {embedded}() TO PUBLIC

-- create_view: what applications search; rights and policies are those of who asks
CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS SELECT * FROM {embedded}()

-- drop_view: for a view of other columns, where the view shows this target
DROP FUNCTION IF EXISTS {nearest};
DROP VIEW IF EXISTS {view};
DROP FUNCTION IF EXISTS {embedded}()

-- drop_typed: what else has a key's types; a trigger on a column keeps its type from being changed
DROP TRIGGER IF EXISTS freshvec_changed ON {target};
DROP POLICY IF EXISTS freshvec_visible ON {target};
DROP FUNCTION IF EXISTS {visible}, {answered}, {settled}

-- create_guard: what others change in the target is walked; a vector they wrote is not known to be its
-- text's. It names no table: that of the target's name may be somebody else's by now.
CREATE OR REPLACE FUNCTION {guard}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $freshvec$
BEGIN
  IF TG_LEVEL = 'ROW' THEN
    NEW.content_hash := NULL;
    RETURN NEW;
  END IF;
  PERFORM freshvec.ask_for_walk({sync_name}, 'the target was changed by hand');
  RETURN NULL;
END
$freshvec$;
REVOKE ALL ON FUNCTION {guard}() FROM PUBLIC

-- guard: in every session but ours, which say who they are (db.py)
CREATE OR REPLACE TRIGGER freshvec_changed
AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF {keys}, {kept_as}, content_hash, fingerprint, encode_error
ON {target} FOR EACH STATEMENT WHEN (current_setting('freshvec.is_ours', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION {guard}();
CREATE OR REPLACE TRIGGER freshvec_vector BEFORE UPDATE OF {kept_as} ON {target} FOR EACH ROW
WHEN (current_setting('freshvec.is_ours', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION {guard}();
ALTER TABLE {target} ENABLE ALWAYS TRIGGER freshvec_changed, ENABLE ALWAYS TRIGGER freshvec_vector

-- is_guarded: whether the tables have these triggers, enabled as they should be
SELECT count(*) = cardinality(%(tables)s::text[]) + 1 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
  JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE t.tgrelid IN (SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) AS name)
   AND t.tgenabled = 'A'
   AND n.nspname = 'freshvec' AND p.proname = 'guard_' || %(name)s

-- create_visible: whether the caller may see a row of the source; a function's text does not pin the table
CREATE OR REPLACE FUNCTION {visible}({key_arguments}) RETURNS boolean LANGUAGE sql STABLE AS $freshvec$
SELECT EXISTS (SELECT FROM {source} AS d WHERE {d_is_argument})
$freshvec$;
GRANT EXECUTE ON FUNCTION {visible} TO PUBLIC

-- create_settled: whether all that was noted of a row, in entries up to a transaction, is answered, if the
-- target has of it what the caller says: the fence, whether it failed, and the model of its vector. Without a
-- key, of any row. It looks at what is ours alone, in a schema where nobody else may make anything, and keys
-- come as values: nothing of the user's runs with its owner's rights. While the table is walked, a row counts
-- once it was read since the walk began.
CREATE OR REPLACE FUNCTION {settled}({key_arguments}, latest xid8, fenced bigint, failed boolean,
                                     made_by bytea) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $freshvec$
SELECT s.trouble IS NULL AND s.source_oid = to_regclass({source_text})::oid
   AND NOT EXISTS (SELECT FROM freshvec.rescan AS r WHERE r.sync = s.name)
   AND NOT EXISTS (SELECT FROM {queue} AS q WHERE q.xid <= latest AND ($1 IS NULL OR {q_is_argument}))
   AND CASE WHEN $1 IS NULL THEN w.is_over AND s.rows_failed = 0
            WHEN fenced IS NULL THEN w.is_over
            ELSE (w.is_over OR fenced > s.walk_fence) AND NOT failed
                 AND coalesce(made_by = s.fingerprint, true) END
  FROM freshvec.sync AS s CROSS JOIN LATERAL (SELECT s.backfill_done OR s.walk_proves AS is_over) AS w
 WHERE s.name = {sync_name}
$freshvec$;
REVOKE ALL ON FUNCTION {settled} FROM PUBLIC

-- create_answered: whether all that was noted of a row is answered. It reads the target with the rights of
-- whoever asks, since what has its name may be a view of somebody else's.
CREATE OR REPLACE FUNCTION {answered}({key_arguments}, latest xid8) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $freshvec$
SELECT {settled}({arguments}, latest, t.fence, t.encode_error IS NOT NULL,
                 CASE WHEN {t_is_embedded} THEN t.fingerprint END)
  FROM (VALUES (true)) AS asked LEFT JOIN {target} AS t ON {t_is_argument}
$freshvec$;
REVOKE ALL ON FUNCTION {answered} FROM PUBLIC

-- enable_row_security: an embedding is seen by who may see its row
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS freshvec_visible ON {table};
CREATE POLICY freshvec_visible ON {table} FOR SELECT USING ({visible}({keys}))

-- disable_row_security: the source has none
ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS freshvec_visible ON {table}

-- describe: an existing relation of the target's name: oid, name and type of what is kept, whether it is
-- ours, row security
SELECT c.oid::bigint, a.attname::text, format_type(a.atttypid, a.atttypmod),
       EXISTS (SELECT FROM pg_attribute o WHERE o.attrelid = c.oid AND o.attname IN ('fence', 'chunk_start'))
       OR c.relkind = 'v' AND pg_get_viewdef(c.oid) LIKE '%% freshvec.embedded\_%%',
       c.relrowsecurity
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname IN ('embedding', 'vector_hash', 'passages')
                           AND NOT a.attisdropped
 WHERE n.nspname = %(schema)s AND c.relname = %(table)s

-- readers: roles that may read the source, PUBLIC as NULL, and whether they may read what is shown. The
-- source's owner is one of them where another role owns the target.
SELECT CASE WHEN acl.grantee = 0 THEN NULL ELSE pg_get_userbyid(acl.grantee)::text END,
       (SELECT count(DISTINCT t.oid) = cardinality(%(readable)s::text[])
          FROM pg_class t CROSS JOIN LATERAL aclexplode(t.relacl) AS has
         WHERE t.oid IN (SELECT to_regclass(name) FROM unnest(%(readable)s::text[]) AS name)
           AND has.grantee = acl.grantee AND has.privilege_type = 'SELECT')
  FROM pg_class c CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS acl
 WHERE c.oid = %(oid)s::oid AND acl.privilege_type = 'SELECT'
   AND acl.grantee <> coalesce((SELECT relowner FROM pg_class WHERE oid = to_regclass(%(target)s)),
                               (SELECT oid FROM pg_roles WHERE rolname = current_user))
 GROUP BY acl.grantee

-- known_roles: those of these roles that still exist
SELECT rolname::text FROM pg_roles WHERE rolname = ANY (%(roles)s::text[])

-- grant: who may read the source may read its embeddings
GRANT SELECT ON {readable} TO {role};
GRANT EXECUTE ON FUNCTION {answered}, {settled} TO {role}

-- revoke: who may read the source no more may not read its embeddings
REVOKE SELECT ON {readable} FROM {role};
REVOKE EXECUTE ON FUNCTION {answered}, {settled} FROM {role}

-- grant_worker: what the worker's role needs, and no more
GRANT SELECT ON {source} TO {role};
GRANT INSERT, UPDATE, DELETE ON {tables} TO {role};
GRANT SELECT ON {readable} TO {role};
GRANT EXECUTE ON FUNCTION {answered}, {settled} TO {role};
GRANT SELECT, INSERT, DELETE, TRUNCATE ON {queue} TO {role}

-- grant_column: and where vectors are written to the source
GRANT UPDATE ({vector_column}) ON {source} TO {role}

-- may_write_column: whether it has that
SELECT has_column_privilege(%(role)s, %(source)s, %(column)s, 'UPDATE')

-- worker_rights: whether the worker's role has all of that
SELECT has_table_privilege(%(role)s, %(source)s, 'SELECT')
   AND (SELECT bool_and(has_table_privilege(%(role)s, name, may))
          FROM unnest(%(tables)s::text[]) AS name,
               unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS may)
   AND has_table_privilege(%(role)s, %(queue)s, 'SELECT')
   AND has_table_privilege(%(role)s, %(queue)s, 'INSERT')
   AND has_table_privilege(%(role)s, %(queue)s, 'DELETE')
   AND has_table_privilege(%(role)s, %(queue)s, 'TRUNCATE')

-- drop: take the target and the queue away
DROP TABLE IF EXISTS {tables};
DROP TABLE IF EXISTS {queue};
DROP FUNCTION IF EXISTS {visible}, {answered}, {settled}, {guard}()
