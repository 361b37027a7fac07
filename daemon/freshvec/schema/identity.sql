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
                                    a.attcollation::text, a.attgenerated::text, a.attnotnull::text,
                                    CASE WHEN a.attgenerated <> '' THEN ad.oid::text END]
                              ORDER BY a.attname)
                FROM pg_attribute a JOIN source ON a.attrelid = source.oid
                LEFT JOIN pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
               WHERE a.attnum > 0 AND NOT a.attisdropped
                 AND (%(columns)s::text[] IS NULL OR a.attname = ANY (%(columns)s::text[]))),
  -- What shows the values of types.
  'labels', (SELECT json_agg(ARRAY[oid::text, enumlabel::text] ORDER BY oid)
               FROM pg_enum WHERE enumtypid = ANY (%(types)s::oid[])),
  'attributes', (SELECT json_agg(ARRAY[a.attrelid::text, a.attnum::text, a.attname::text, a.atttypid::text]
                                 ORDER BY a.attrelid, a.attnum)
                   FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid
                  WHERE t.oid = ANY (%(types)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped),
  'casts', (SELECT json_agg(ARRAY[oid::text, castfunc::text] ORDER BY oid)
              FROM pg_cast WHERE castsource = ANY (%(types)s::oid[])),
  'keys', (SELECT json_agg(ARRAY[i.indkey::text, i.indisprimary::text]
                            ORDER BY i.indisprimary DESC, i.indexrelid)
             FROM pg_index i JOIN source ON i.indrelid = source.oid
            WHERE i.indisunique AND i.indisvalid AND i.indimmediate
              AND i.indpred IS NULL AND i.indexprs IS NULL),
  -- Those of the same name, since the text may come to mean another of them.
  'functions', (SELECT json_agg(DISTINCT ARRAY[p.oid::text, p.xmin::text])
                  FROM pg_proc f JOIN pg_proc p USING (proname, pronamespace)
                 WHERE f.oid = ANY (%(functions)s::oid[])),
  'operators', (SELECT json_agg(DISTINCT ARRAY[o.oid::text, o.oprcode::oid::text])
                  FROM pg_operator f JOIN pg_operator o USING (oprname, oprnamespace)
                 WHERE f.oid = ANY (%(operators)s::oid[])),
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
