-- bootstrap: the schema and the list of applied migrations
CREATE SCHEMA IF NOT EXISTS embedsync;
CREATE TABLE IF NOT EXISTS embedsync.migration (
  name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
)

-- exists: whether the schema has been made
SELECT to_regclass('embedsync.migration') IS NOT NULL

-- applied: name and checksum of every applied migration
SELECT name, sha256 FROM embedsync.migration ORDER BY name

-- note: a migration has been applied
INSERT INTO embedsync.migration (name, sha256) VALUES (%(name)s, %(sha256)s)

-- lock: one applies at a time
SELECT pg_advisory_lock(%(class)s, %(object)s)

-- unlock: the next may apply
SELECT pg_advisory_unlock(%(class)s, %(object)s)

-- find_sync: what was applied for a sync
SELECT id, definition FROM embedsync.sync WHERE name = %(name)s

-- all_exist: whether every one of these tables and views is there
SELECT bool_and(to_regclass(name) IS NOT NULL) FROM unnest(%(names)s::text[]) AS name

-- insert_sync: make a sync known
INSERT INTO embedsync.sync (name, source_schema, source_table, target_schema, target_table, model, fingerprint, definition)
VALUES (%(name)s, %(source_schema)s, %(source_table)s, %(target_schema)s, %(target_table)s, %(model)s, %(fingerprint)s, '')
RETURNING id

-- define_sync: note what is being applied; a new text or model is walked from the beginning
UPDATE embedsync.sync
   SET definition = %(definition)s, model = %(model)s, fingerprint = %(fingerprint)s,
       source_schema = %(source_schema)s, source_table = %(source_table)s,
       target_schema = %(target_schema)s, target_table = %(target_table)s,
       backfill_done = false, backfill_after = NULL
 WHERE name = %(name)s

-- target_taken: the sync that already writes to a target
SELECT name FROM embedsync.sync WHERE target_schema = %(target_schema)s AND target_table = %(target_table)s AND name <> %(name)s

-- list_syncs: every applied sync
SELECT id, name, source_schema, source_table, target_schema, target_table FROM embedsync.sync ORDER BY name

-- forget: nothing is known of a removed sync
WITH gone AS (DELETE FROM embedsync.rescan WHERE sync = %(name)s) DELETE FROM embedsync.sync WHERE name = %(name)s

-- grant_schema: what the daemon's role needs of the schema
GRANT USAGE ON SCHEMA embedsync TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA embedsync TO {role};
GRANT UPDATE ON embedsync.sync TO {role};
GRANT SELECT, DELETE ON embedsync.rescan TO {role};
GRANT SELECT, INSERT, UPDATE ON embedsync.activity TO {role};
GRANT USAGE ON SEQUENCE embedsync.token TO {role}
