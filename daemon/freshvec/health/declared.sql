-- server: whether the schema has been made, and the database's encoding
SELECT to_regclass('freshvec.status') IS NOT NULL, pg_catalog.current_setting('server_encoding')

-- applied: what was applied of every sync, and whether its tables are those that it was applied to
SELECT name, definition, source, to_regclass(source) IS NOT NULL AS has_source,
       to_regclass(source)::oid IS NOT DISTINCT FROM source_oid AS is_same_source,
       (SELECT source_oid::regclass::text FROM pg_class WHERE oid = source_oid) AS is_now,
       target, to_regclass(target) IS NOT NULL AS has_target
  FROM (SELECT name, definition, source_oid, format('%I.%I', source_schema, source_table) AS source,
               format('%I.%I', target_schema, target_table) AS target
          FROM freshvec.sync) AS s
