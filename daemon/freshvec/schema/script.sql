-- head: what the script is, and how its session is to be
-- Made by `freshvec plan --sql`. Run it with: psql -1 -v ON_ERROR_STOP=1
SET client_encoding = 'UTF8'

-- begin: as in apply's sessions: names are qualified, and nobody waits long
SET search_path = pg_catalog, pg_temp;
SET check_function_bodies = on;
SET lock_timeout = '1s';
SET client_min_messages = warning;
SET freshvec.is_ours = on

-- lock: one changes the schema at a time
SELECT pg_advisory_xact_lock(%(class)s, %(object)s)

-- columns: the columns of a table, as one number: a name that stood here might end what it stands in
SELECT encode(sha256(convert_to(string_agg(
         format('%%s %%s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum), 'UTF8')), 'hex')
  FROM pg_attribute WHERE attrelid = %(oid)s::oid AND attnum > 0 AND NOT attisdropped

-- check: the table is the one that was planned for
DO $freshvec$
BEGIN
  IF to_regclass(%(table)s)::oid IS DISTINCT FROM %(oid)s::oid
     OR %(columns)s IS DISTINCT FROM (
          SELECT encode(sha256(convert_to(string_agg(
                   format('%%s %%s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum),
                   'UTF8')), 'hex')
            FROM pg_attribute WHERE attrelid = %(oid)s::oid AND attnum > 0 AND NOT attisdropped) THEN
    RAISE EXCEPTION 'table %% has changed since this was planned', %(table)s
      USING HINT = 'Run freshvec plan --sql again.';
  END IF;
END $freshvec$

-- note: what the sync is bound to: of our objects what is there now, of the rest what was planned, so that
-- whatever else has changed meanwhile is seen at the next look
UPDATE freshvec.sync
   SET identity = (({identity})::jsonb || %(planned)s::jsonb - %(ours)s::text[])::text
 WHERE name = %(name)s
