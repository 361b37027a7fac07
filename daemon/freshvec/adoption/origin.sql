-- candidates: columns that may hold vectors of the source's rows: in the source itself, or in a table that
-- has its key by a foreign key, or by the names and types of its columns. With each: its type, its dimension,
-- the key's columns there, how they are known, whether an index finds rows by them, and all columns with
-- types.
WITH key AS (
  SELECT a.attname, a.attnum, a.atttypid, k.place
    FROM unnest(%(key)s::text[]) WITH ORDINALITY AS k (name, place)
    JOIN pg_attribute a ON a.attrelid = %(oid)s::oid AND a.attname = k.name
), holder AS (
  SELECT c.oid, c.relname, n.nspname, h.key,
         CASE WHEN c.oid = %(oid)s::oid THEN 'itself'
              WHEN by_reference.key IS NOT NULL THEN 'reference' ELSE 'name' END AS known_by
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN LATERAL (
      SELECT (SELECT array_agg(p.own ORDER BY key.place)
                FROM key JOIN unnest(o.conkey, o.confkey) AS p (own, theirs) ON p.theirs = key.attnum) AS key
        FROM pg_constraint o
       WHERE o.conrelid = c.oid AND o.confrelid = %(oid)s::oid AND o.contype = 'f' AND c.oid <> %(oid)s::oid
         AND cardinality(o.confkey) = cardinality(%(key)s::text[])
         AND NOT EXISTS (SELECT FROM key WHERE key.attnum <> ALL (o.confkey))
       ORDER BY o.oid LIMIT 1
    ) AS by_reference ON true
    LEFT JOIN LATERAL (
      SELECT array_agg(a.attnum ORDER BY key.place) AS key
        FROM key JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = key.attname
                                    AND a.atttypid = key.atttypid AND NOT a.attisdropped
      HAVING count(*) = cardinality(%(key)s::text[])
    ) AS by_name ON true
   CROSS JOIN LATERAL (SELECT coalesce(by_reference.key, by_name.key) AS key) AS h
   WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND h.key IS NOT NULL
     AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'freshvec')
     AND NOT EXISTS (SELECT FROM pg_attribute f WHERE f.attrelid = c.oid AND f.attname = 'fingerprint'
                                                  AND NOT f.attisdropped)
)
SELECT holder.nspname::text, holder.relname::text, a.attname::text, t.typname::text,
       CASE WHEN t.typname IN ('vector', 'halfvec') AND a.atttypmod > 0 THEN a.atttypmod END,
       ARRAY(SELECT k.attname::text
               FROM unnest(holder.key) WITH ORDINALITY AS p (attnum, place)
               JOIN pg_attribute k ON k.attrelid = holder.oid AND k.attnum = p.attnum ORDER BY p.place),
       holder.known_by,
       EXISTS (SELECT FROM pg_index i
                WHERE i.indrelid = holder.oid AND i.indisvalid AND i.indpred IS NULL
                  AND (i.indkey::int2[])[0:cardinality(holder.key) - 1] @> holder.key),
       (SELECT jsonb_object_agg(o.attname, format_type(o.atttypid, NULL)) FROM pg_attribute o
         WHERE o.attrelid = holder.oid AND o.attnum > 0 AND NOT o.attisdropped)
  FROM holder JOIN pg_attribute a ON a.attrelid = holder.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type t ON t.oid = a.atttypid
 WHERE t.typname = ANY (%(types)s::text[]) AND a.attnum <> ALL (holder.key)
 ORDER BY holder.known_by, 1, 2, a.attnum

-- beneath: the tables that a view reads
SELECT DISTINCT n.nspname::text, t.relname::text
  FROM pg_class v JOIN pg_namespace vn ON vn.oid = v.relnamespace JOIN pg_rewrite r ON r.ev_class = v.oid
  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                  AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
  JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace n ON n.oid = t.relnamespace
 WHERE v.relkind IN ('v', 'm') AND v.relname = %(view)s
   AND (%(schema)s::text IS NULL OR vn.nspname = %(schema)s)

-- vectorizers: whether the database has pgai's catalogue, and this role may read it
SELECT CASE WHEN has_schema_privilege(to_regnamespace('ai')::oid, 'USAGE')
            THEN coalesce(has_table_privilege(to_regclass('ai.vectorizer')::oid, 'SELECT'), false)
            ELSE false END

-- vectorizer_of: pgai's number of whatever made a trigger
SELECT id::int FROM ai.vectorizer WHERE trigger_name = %(trigger)s

-- triggers: those of others on the source that keep vectors: by what they, their functions or these
-- functions' schemas are called, or what their functions say
SELECT t.tgname::text, quote_ident(t.tgname), t.tgrelid::regclass::text, fn.nspname::text
  FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace fn ON fn.oid = p.pronamespace
 WHERE t.tgrelid = %(oid)s::oid AND NOT t.tgisinternal AND fn.nspname <> 'freshvec'
   AND (fn.nspname IN ('ai', 'vectorize', 'pgmq')
        OR concat_ws(' ', t.tgname, p.proname, p.prosrc) ~* 'embed|vectori[sz]'
        OR strpos(p.prosrc, %(table)s) > 0 AND NOT %(is_source)s)
 ORDER BY t.tgname
