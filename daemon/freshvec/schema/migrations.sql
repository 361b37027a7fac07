-- bootstrap: the schema and the list of applied migrations
CREATE SCHEMA IF NOT EXISTS freshvec;
CREATE TABLE IF NOT EXISTS freshvec.migration (
  name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
)

-- exists: whether the schema has been made
SELECT to_regclass('freshvec.migration') IS NOT NULL

-- applied: name and checksum of every applied migration
SELECT name, sha256 FROM freshvec.migration ORDER BY name

-- lacks_rows: whether there is what migrations make, and no note of any; by one snapshot, since the first of
-- them may just be applied
SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'freshvec'::regnamespace AND relname = 'sync')
   AND NOT EXISTS (SELECT FROM freshvec.migration)

-- relations: what is in the schema, but its first table where that has just been made
SELECT coalesce(array_agg(oid::bigint), '{}') FROM pg_class
 WHERE relnamespace = 'freshvec'::regnamespace
   AND (relname <> 'migration' OR EXISTS (SELECT FROM freshvec.migration))

-- others: and what is there beside it
SELECT oid FROM pg_class
 WHERE relnamespace = 'freshvec'::regnamespace AND relkind IN ('r', 'v', 'S') AND oid <> ALL ({known}::oid[])

-- note: a migration has been applied
INSERT INTO freshvec.migration (name, sha256) VALUES (%(name)s, %(sha256)s)

-- lock_patiently: for the next statement, however long it takes
SET lock_timeout = 0

-- lock_briefly: back to the session's own bound
SET lock_timeout = '10s'

-- give_way: to whoever uses what is changed, in this transaction
SET LOCAL lock_timeout = '100ms'

-- lock: one applies at a time
SELECT pg_advisory_lock(%(class)s, %(object)s)

-- try_lock: the same, where nobody does
SELECT pg_try_advisory_lock(%(class)s, %(object)s)

-- holder: who does: its backend and what it calls itself
SELECT l.pid, coalesce(nullif(a.application_name, ''), 'unknown')
  FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'advisory' AND l.classid = %(class)s::bigint::oid AND l.objid = %(object)s::bigint::oid
   AND l.objsubid = 2 AND l.granted
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- unlock: the next may apply
SELECT pg_advisory_unlock(%(class)s, %(object)s)
