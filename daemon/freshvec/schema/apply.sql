-- pause: before the next attempt
SELECT pg_sleep(%(seconds)s)

-- give_way_soon: whoever waits for a table's lock holds up all who come after
SET LOCAL lock_timeout = '1s'

-- insert_sync: make a sync known
INSERT INTO freshvec.sync (name, source_schema, source_table, target_schema, target_table, model, fingerprint, definition)
VALUES (%(name)s, %(source_schema)s, %(source_table)s, %(target_schema)s, %(target_table)s, %(model)s, %(fingerprint)s, '')
RETURNING id

-- define_sync: note what is being applied; a new text or model is walked from the beginning
UPDATE freshvec.sync
   SET definition = %(definition)s, model = %(model)s, fingerprint = %(fingerprint)s,
       source_schema = %(source_schema)s, source_table = %(source_table)s,
       target_schema = %(target_schema)s, target_table = %(target_table)s,
       backfill_done = false, backfill_after = NULL
 WHERE name = %(name)s

-- find_target: where an applied sync writes to
SELECT target_schema, target_table FROM freshvec.sync WHERE name = %(name)s

-- names: every applied sync
SELECT name FROM freshvec.sync ORDER BY name

-- forget: nothing is known of a removed sync
WITH gone AS (DELETE FROM freshvec.rescan WHERE sync = %(name)s) DELETE FROM freshvec.sync WHERE name = %(name)s
