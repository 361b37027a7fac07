-- find_sync: what was applied for a sync
SELECT id, definition, shape, identity, generation, granted, source_oid::bigint
  FROM freshvec.sync WHERE name = %(name)s

-- renamed: the name that the table of an applied sync has now
SELECT source_oid::regclass::text FROM freshvec.sync
 WHERE name = %(name)s AND EXISTS (SELECT FROM pg_class WHERE oid = source_oid)

-- target_taken: the sync that already writes to a target
SELECT name FROM freshvec.sync
 WHERE target_schema = %(target_schema)s AND target_table = %(target_table)s AND name <> %(name)s

-- worker_rights: whether the worker's role has what it needs of the schema
SELECT has_schema_privilege(%(role)s, 'freshvec', 'USAGE')
   AND has_table_privilege(%(role)s, 'freshvec.sync', 'UPDATE')
   AND has_table_privilege(%(role)s, 'freshvec.activity', 'INSERT')
   AND has_table_privilege(%(role)s, 'freshvec.lag_hour', 'INSERT')
   AND has_table_privilege(%(role)s, 'freshvec.edition', 'SELECT')
   AND has_table_privilege(%(role)s, 'freshvec.range', 'DELETE')
   AND has_table_privilege(%(role)s, 'freshvec.unlogged', 'INSERT')
   AND has_function_privilege(%(role)s, 'freshvec.ring(text)', 'EXECUTE')

-- grant_schema: what the worker's role needs of the schema
GRANT USAGE ON SCHEMA freshvec TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA freshvec TO {role};
GRANT UPDATE ON freshvec.sync TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON freshvec.rescan, freshvec.lag_hour, freshvec.member, freshvec.range
   TO {role};
GRANT SELECT, INSERT, UPDATE ON freshvec.activity TO {role};
GRANT SELECT, INSERT ON freshvec.unlogged TO {role};
GRANT SELECT, UPDATE, USAGE ON SEQUENCE freshvec.fence TO {role};
GRANT EXECUTE ON FUNCTION freshvec.ring(text), freshvec.ask_for_walk(text, text),
      freshvec.sync_status(), freshvec.sync_progress(), freshvec.failures(int) TO {role}
