-- relation: what a table is: oid, schema, name, kind
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = %(table)s
   AND CASE WHEN %(schema)s::text IS NULL THEN n.nspname = 'public' ELSE n.nspname = %(schema)s END

-- key: the columns of the primary key, or of the first unique index that allows no NULL
SELECT i.indisprimary, array_agg(a.attname::text ORDER BY k.place), array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY k.place)
  FROM pg_index i
 CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
 WHERE i.indrelid = %(oid)s::oid AND i.indisunique AND i.indisvalid AND i.indimmediate
   AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
 GROUP BY i.indexrelid, i.indisprimary
HAVING bool_and(a.attnotnull)
 ORDER BY i.indisprimary DESC, i.indexrelid
 LIMIT 1

-- columns: the names of a table's columns
SELECT attname::text FROM pg_attribute WHERE attrelid = %(oid)s::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum

-- relations: the table and every partition or child a statement may write to directly
WITH RECURSIVE family AS (
  SELECT %(oid)s::oid AS oid
  UNION
  SELECT inhrelid FROM pg_inherits JOIN family ON inhparent = family.oid
)
SELECT n.nspname, c.relname FROM family JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') ORDER BY c.oid

-- check_text: parse the text's expression without reading a row
SELECT {text} AS freshvec_text FROM {source} WHERE false

-- vector_schema: where pgvector lives, and whether the server could install it
SELECT (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'),
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')
