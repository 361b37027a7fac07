-- find_sync: what was applied for a sync
SELECT id, definition FROM freshvec.sync WHERE name = %(name)s

-- all_exist: whether every one of these tables and views is there
SELECT bool_and(to_regclass(name) IS NOT NULL) FROM unnest(%(names)s::text[]) AS name

-- target_taken: the sync that already writes to a target
SELECT name FROM freshvec.sync WHERE target_schema = %(target_schema)s AND target_table = %(target_table)s AND name <> %(name)s

-- grant_schema: what the daemon's role needs of the schema
GRANT USAGE ON SCHEMA freshvec TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA freshvec TO {role};
GRANT UPDATE ON freshvec.sync TO {role};
GRANT SELECT, DELETE ON freshvec.rescan TO {role};
GRANT SELECT, INSERT, UPDATE ON freshvec.activity TO {role};
GRANT USAGE ON SEQUENCE freshvec.fence TO {role}
