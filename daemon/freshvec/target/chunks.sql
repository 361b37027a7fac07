-- create: one row per source row that has a text, and one per passage of it
CREATE TABLE IF NOT EXISTS {target} (
  {key_columns_typed},
  passages int,                       -- how many; NULL: it could not be encoded, or the row is about to leave
  content_hash bytea,                 -- first 16 bytes of sha256 of the text, and of how it is cut
  fingerprint bytea NOT NULL,         -- of the model
  fence bigint NOT NULL,              -- only a later read may overwrite
  encode_error text,                  -- why the text could not be read or encoded
  embedded_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY ({keys})
);
CREATE TABLE IF NOT EXISTS {vectors} (
  {key_columns_typed},
  chunk int NOT NULL,                 -- its number, which a passage keeps: no order, chunk_start gives that
  chunk_start int NOT NULL,           -- where it begins in the row's text, in characters from 0
  chunk_end int NOT NULL,             -- where the first character stands that is not of it
  content_hash bytea,                 -- of the passage; NULL: others have changed its vector
  embedding {vector_type} NOT NULL,
  PRIMARY KEY ({keys}, chunk),
  FOREIGN KEY ({keys}) REFERENCES {target} ON DELETE CASCADE
)

-- create_function: the passages of rows that exist, of the applied model alone. What a passage says is taken
-- from the row as it is now, where that is still the text that was cut, in this session's settings.
CREATE OR REPLACE FUNCTION {embedded}()
  RETURNS TABLE ({view_columns}, chunk int, chunk_start int, chunk_end int, passage text,
                 embedding {vector_type}, embedded_at timestamptz)
LANGUAGE sql STABLE AS $freshvec$
SELECT {c_keys}, c.chunk, c.chunk_start, c.chunk_end,
       CASE WHEN t.content_hash = {d_hash}
            THEN substr(d.freshvec_text, c.chunk_start + 1, c.chunk_end - c.chunk_start) END,
       c.embedding, t.embedded_at
  FROM {vectors} AS c JOIN {target} AS t ON {c_is_t}
  JOIN (SELECT {keys}, {text} AS freshvec_text FROM {source}) AS d ON {d_is_t}
 WHERE {t_is_embedded} AND t.fingerprint = {fingerprint}
$freshvec$;
GRANT EXECUTE ON FUNCTION {embedded}() TO PUBLIC

-- create_view: what applications search, and the rows with the best passages by it; rights and policies are
-- those of who asks
CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS SELECT * FROM {embedded}();
CREATE OR REPLACE FUNCTION {nearest}(
    searched {plain_type}, wanted int DEFAULT 10, candidates int DEFAULT NULL)
  RETURNS TABLE ({view_columns}, distance float8, passage text, chunk_start int, chunk_end int)
LANGUAGE sql STABLE AS $freshvec$
SELECT {c_keys}, c.distance, c.passage, c.chunk_start, c.chunk_end
  FROM (SELECT DISTINCT ON ({c_keys}) c.*
          FROM (SELECT c.*, c.embedding OPERATOR({schema}.{operator}) $1 AS distance
                  FROM {embedded}() AS c
                 ORDER BY c.embedding OPERATOR({schema}.{operator}) $1
                 LIMIT coalesce($3, 20 * $2)) AS c
         ORDER BY {c_keys}, c.distance) AS c
 ORDER BY c.distance LIMIT $2
$freshvec$;
GRANT EXECUTE ON FUNCTION {nearest} TO PUBLIC

-- create_guard: what others change is walked; a vector they wrote is not known to be its text's. It writes
-- only to tables whose owner has its owner's rights already, since those of their names may be others' by
-- now.
CREATE OR REPLACE FUNCTION {guard}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $freshvec$
BEGIN
  IF TG_LEVEL = 'STATEMENT' THEN
    PERFORM freshvec.ask_for_walk({sync_name}, 'the target was changed by hand');
  END IF;
  LOCK TABLE {target}, {vectors} IN ROW EXCLUSIVE MODE;  -- which others cannot replace from here on
  IF NOT (SELECT bool_and(c.relkind = 'r' AND pg_has_role(c.relowner, current_user, 'MEMBER'))
            FROM pg_class AS c
           WHERE c.oid IN ({target_text}::regclass, {vectors_text}::regclass)) THEN
    RETURN NULL;
  ELSIF TG_LEVEL = 'STATEMENT' THEN
    IF TG_OP = 'TRUNCATE' AND TG_RELID = {vectors_text}::regclass THEN
      UPDATE {target} SET content_hash = NULL;
    END IF;
  ELSE
    IF TG_OP <> 'INSERT' THEN
      UPDATE {target} AS t SET content_hash = NULL WHERE {t_is_old};
    END IF;
    IF TG_OP <> 'DELETE' THEN
      UPDATE {target} AS t SET content_hash = NULL WHERE {t_is_new};
      UPDATE {vectors} AS c SET content_hash = NULL
       WHERE {c_is_new} AND c.chunk = NEW.chunk AND c.content_hash IS NOT NULL;
    END IF;
  END IF;
  RETURN NULL;
END
$freshvec$;
REVOKE ALL ON FUNCTION {guard}() FROM PUBLIC

-- guard: in every session but ours, which say who they are (db.py)
CREATE OR REPLACE TRIGGER freshvec_changed
AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF {keys}, passages, content_hash, fingerprint, encode_error
ON {target} FOR EACH STATEMENT WHEN (current_setting('freshvec.is_ours', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION {guard}();
CREATE OR REPLACE TRIGGER freshvec_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
ON {vectors} FOR EACH STATEMENT WHEN (current_setting('freshvec.is_ours', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION {guard}();
CREATE OR REPLACE TRIGGER freshvec_vector AFTER INSERT OR UPDATE OR DELETE ON {vectors} FOR EACH ROW
WHEN (current_setting('freshvec.is_ours', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION {guard}();
ALTER TABLE {target} ENABLE ALWAYS TRIGGER freshvec_changed;
ALTER TABLE {vectors} ENABLE ALWAYS TRIGGER freshvec_changed, ENABLE ALWAYS TRIGGER freshvec_vector

-- drop_typed: what else has a key's types
DROP POLICY IF EXISTS freshvec_visible ON {target};
DROP FUNCTION IF EXISTS {visible}, {answered}, {settled}
