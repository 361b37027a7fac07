-- identity: what a running sync relies on, as the catalogue has it now
WITH RECURSIVE source AS (
  SELECT c.oid, c.relrowsecurity, c.relforcerowsecurity, c.relacl, c.relowner
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = %(schema)s AND c.relname = %(table)s
), family AS (
  SELECT oid FROM source
  UNION
  SELECT inhrelid FROM pg_inherits JOIN family ON inhparent = family.oid AND NOT inhdetachpending
)
SELECT json_build_object(
  'source', (SELECT oid::bigint FROM source),
  'parent', EXISTS (SELECT FROM pg_inherits JOIN source ON inhrelid = source.oid),
  'columns', (SELECT json_agg(ARRAY[a.attname::text, a.attnum::text, format_type(a.atttypid, a.atttypmod),
                                    a.attcollation::text, a.attgenerated::text, a.attnotnull::text]
                              ORDER BY a.attname)
                FROM pg_attribute a JOIN source ON a.attrelid = source.oid
               WHERE a.attname = ANY (%(columns)s::text[]) AND NOT a.attisdropped),
  'keys', (SELECT json_agg(ARRAY[i.indkey::text, i.indisprimary::text]
                            ORDER BY i.indisprimary DESC, i.indexrelid)
             FROM pg_index i JOIN source ON i.indrelid = source.oid
            WHERE i.indisunique AND i.indisvalid AND i.indimmediate
              AND i.indpred IS NULL AND i.indexprs IS NULL),
  'functions', (SELECT json_agg(ARRAY[p.oid::text, p.xmin::text] ORDER BY p.oid)
                  FROM pg_proc p WHERE p.oid = ANY (%(functions)s::oid[])),
  'members', (SELECT json_object_agg(c.oid::text, c.relfilenode::text ORDER BY c.oid)
                FROM family JOIN pg_class c USING (oid) WHERE c.relkind IN ('r', 'p', 'f')),
  'triggers', (SELECT json_object_agg(t.tgrelid::text || ' ' || t.tgname,
                                      t.tgenabled::text || ' ' || t.xmin::text
                                      ORDER BY t.tgrelid, t.tgname)
                 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                      JOIN pg_namespace n ON n.oid = p.pronamespace
                WHERE n.nspname = 'freshvec'
                  AND p.proname = ANY (ARRAY['capture_' || %(name)s, 'capture_row_' || %(name)s])),
  'target', to_regclass(%(target)s)::oid::bigint,
  'target_files', (SELECT json_agg(relfilenode::bigint ORDER BY oid) FROM pg_class
                    WHERE oid IN (SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) AS name)),
  'guards', (SELECT json_agg(t.tgname::text || ' ' || t.tgenabled::text || ' ' || t.xmin::text
                             ORDER BY t.tgname)
               FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                    JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE t.tgrelid IN (SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) AS name)
                AND n.nspname = 'freshvec' AND p.proname = 'guard_' || %(name)s),
  'queue', to_regclass(%(queue)s)::oid::bigint,
  'queue_file', (SELECT relfilenode::bigint FROM pg_class WHERE oid = to_regclass(%(queue)s)),
  'view', to_regclass(%(view)s)::oid::bigint,
  'security', (SELECT ARRAY[relrowsecurity::text, relforcerowsecurity::text] FROM source),
  'access', (SELECT coalesce(relacl::text, '') || ' ' || relowner::text FROM source)
)::text

-- generation: of an applied sync
SELECT generation FROM freshvec.sync WHERE name = %(name)s
