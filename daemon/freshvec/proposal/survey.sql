-- within: a survey waits for nobody, and leaves a table that takes long
SELECT set_config('statement_timeout', '5s', false), set_config('lock_timeout', '500ms', false)

-- server: who is connected where, the version, and pgvector: its version, the one that could be installed,
-- and whether it has halfvec
SELECT current_database(), current_user::text, current_setting('server_version'),
       (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'),
       EXISTS (SELECT FROM pg_type t JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid
                 JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
                WHERE t.typname = 'halfvec' AND e.extname = 'vector')

-- tables: tables with columns of text, largest first, and how many there are: no partitions or children, none
-- of the system's, of extensions or of freshvec
WITH candidate AS (
  SELECT c.oid, n.nspname, c.relname, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.relowner
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p')
     AND n.nspname NOT LIKE 'pg\_%%' AND n.nspname NOT IN ('information_schema', 'freshvec')
     AND (%(schema)s::text IS NULL OR n.nspname = %(schema)s)
     AND (%(table)s::text IS NULL OR c.relname = %(table)s)
     AND (%(table)s::text IS NOT NULL OR NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid))
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND d.deptype = 'e')
     AND NOT (SELECT count(*) = 3 FROM pg_attribute a
               WHERE a.attrelid = c.oid AND a.attname IN ('fence', 'fingerprint', 'content_hash'))
     AND EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND t.typcategory = 'S'
                    AND t.typname <> 'name')
)
SELECT c.oid::bigint, c.nspname::text, c.relname::text, c.relkind = 'p',
       has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(c.nspname, 'USAGE'),
       c.relrowsecurity AND NOT (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user)
         AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE')),
       count(*) OVER ()::int
  FROM candidate c
 CROSS JOIN LATERAL (
   WITH RECURSIVE family AS (
     SELECT c.oid
     UNION
     SELECT inhrelid FROM pg_inherits JOIN family ON inhparent = family.oid
   )
   -- what was never analysed is guessed at by its statistics: to measure a file waits for its table's lock
   SELECT sum(CASE WHEN m.relkind <> 'r' THEN 0 WHEN m.relpages > 0 THEN m.relpages
                   ELSE coalesce(pg_stat_get_live_tuples(m.oid), 0) / 20.0 END) AS pages
     FROM family JOIN pg_class m ON m.oid = family.oid) AS f
 ORDER BY f.pages DESC, c.nspname, c.relname LIMIT %(most)s

-- columns: the columns of a table that hold text
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod)
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped
   AND t.typcategory = 'S' AND t.typname <> 'name'
 ORDER BY a.attnum

-- vectors: columns of a table that hold vectors already
SELECT a.attname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped
   AND t.typname IN ('vector', 'halfvec') ORDER BY a.attnum

-- key_guess: the column of a table without key that looks like one
SELECT a.attname::text FROM pg_attribute a
 WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped
   AND a.attname IN ('id', 'uuid', 'key') ORDER BY a.attname = 'id' DESC LIMIT 1

-- sample: some rows' texts, the columns as an array, each cut
SELECT ARRAY[{columns}] FROM {table} TABLESAMPLE {share} LIMIT {rows}
