-- as_of_now: rows and their passages are copied as of one moment, while others write both
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ

-- lock: no writing transaction of an older generation is under way any more, and none begins
SELECT pg_advisory_xact_lock(%(class)s, hashtext(%(name)s))

-- insert_sync: make a sync known
INSERT INTO freshvec.sync (name, source_schema, source_table, source_oid, target_schema, target_table,
                           vectors_schema, vectors_table, vectors_column, model, fingerprint, definition,
                           shape)
VALUES (%(name)s, %(source_schema)s, %(source_table)s, %(source_oid)s, %(target_schema)s, %(target_table)s,
        %(vectors_schema)s, %(vectors_table)s, %(vectors_column)s, %(model)s, %(fingerprint)s, '', '')
    ON CONFLICT (name) DO NOTHING

-- define_sync: note what is applied; what is defined otherwise, or may have changed unseen, is walked from
-- the beginning, and what was handed out of an earlier walk is void
WITH discarded AS (
  DELETE FROM freshvec.range WHERE sync = %(name)s AND %(walk)s
)
UPDATE freshvec.sync
   SET definition = %(definition)s, shape = %(shape)s, identity = %(identity)s, granted = %(granted)s,
       rows_embedded = CASE WHEN fingerprint = %(fingerprint)s AND source_oid = %(source_oid)s::oid
                            THEN rows_embedded ELSE 0 END,
       model = %(model)s, fingerprint = %(fingerprint)s, source_oid = %(source_oid)s,
       source_schema = %(source_schema)s, source_table = %(source_table)s,
       target_schema = %(target_schema)s, target_table = %(target_table)s,
       vectors_schema = %(vectors_schema)s, vectors_table = %(vectors_table)s,
       vectors_column = %(vectors_column)s, trouble = %(trouble)s,
       generation = generation + CASE WHEN %(is_new_binding)s THEN 1 ELSE 0 END,
       backfill_done = backfill_done AND NOT %(walk)s,
       backfill_after = CASE WHEN %(walk)s THEN NULL ELSE backfill_after END,
       walk_is_cut = walk_is_cut AND NOT %(walk)s,
       walk_proves = walk_proves AND NOT %(walk)s,
       walk_rows = CASE WHEN %(walk)s THEN 0 ELSE walk_rows END,
       walk_found = CASE WHEN %(walk)s THEN 0 ELSE walk_found END,
       walk_started_at = CASE WHEN %(walk)s THEN now() ELSE walk_started_at END,
       walk_fence = CASE WHEN %(walk)s THEN (SELECT last_value FROM freshvec.fence) ELSE walk_fence END
 WHERE name = %(name)s
RETURNING id, generation

-- raise_fence: the next fence is above every one that the target holds
SELECT setval('freshvec.fence', t.highest)
  FROM (SELECT max(fence) AS highest FROM {target}) AS t
 WHERE {is_trusted} AND t.highest >= (SELECT last_value FROM freshvec.fence)

-- queue_member: every row of a table that has come into the family
INSERT INTO {queue} (bulk, {k}) SELECT true, {keys} FROM ONLY {member} WHERE pg_current_xact_id() IS NOT NULL

-- has_room: whether the queue has room for every row of a table: an entry takes 36 bytes beside its key. No
-- more rows are looked at than would fill it.
SELECT coalesce(sum(36 + pg_column_size(ROW ({keys}))), 0)
       <= %(queue_bytes)s - pg_relation_size(to_regclass(%(queue)s))
  FROM (SELECT {keys} FROM ONLY {member} LIMIT %(queue_bytes)s / 36 + 1) AS d

-- member: the name of a table
SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = %(oid)s::oid AND c.relkind = 'r'

-- find_tables: the tables made for an applied sync, its target first
SELECT made.schema, made.name
  FROM freshvec.sync AS s CROSS JOIN LATERAL (VALUES
         (1, s.target_schema, s.target_table),
         (2, s.vectors_schema, s.vectors_table)) AS made (place, schema, name)
 WHERE s.name = %(name)s
   AND (made.place = 1 OR (made.schema, made.name) NOT IN ((s.target_schema, s.target_table),
                                                           (s.source_schema, s.source_table)))
 ORDER BY made.place

-- kept_column: the statement that drops the column of a sync's source that vectors are in
SELECT format('ALTER TABLE %%I.%%I DROP COLUMN %%I', source_schema, source_table, vectors_column)
  FROM freshvec.sync
 WHERE name = %(name)s AND (vectors_schema, vectors_table) = (source_schema, source_table)

-- forget: nothing is known of a removed sync, nor of editions where the first is alone again
WITH gone AS (DELETE FROM freshvec.rescan WHERE sync = %(name)s),
first AS (DELETE FROM freshvec.edition AS e
           WHERE e.name = %(name)s OR e.number = 1 AND e.is_shown AND NOT EXISTS (
                 SELECT FROM freshvec.edition AS o
                  WHERE o.sync = e.sync AND o.name NOT IN (e.name, %(name)s)))
DELETE FROM freshvec.sync WHERE name = %(name)s

-- ask_for_walk: have the owner compare the whole table
SELECT freshvec.ask_for_walk(%(name)s, %(reason)s)

-- own: nobody owns the sync, and nobody will until it is disowned
SELECT pg_try_advisory_lock(%(class)s, hashtext(%(name)s))

-- disown: a worker may own it
SELECT pg_advisory_unlock(%(class)s, hashtext(%(name)s))

-- owner: who owns a sync: its backend and what it calls itself
SELECT l.pid, a.application_name FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'advisory' AND l.classid = %(class)s::bigint::oid AND l.objsubid = 2 AND l.granted
   AND l.objid::bigint = hashtext(%(name)s)::bigint & 4294967295
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- may_grant: whether this role has the rights of these tables' owners
SELECT bool_and(pg_has_role(c.relowner, 'USAGE'))
  FROM pg_class c JOIN unnest(%(names)s::text[]) AS name ON c.oid = to_regclass(name)
