-- server: encoding and version of the server
SELECT current_setting('server_encoding'), current_setting('server_version_num')::int

-- tables: names of tables, in lower case and as they are written in full
SELECT lower(c.relname), quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'freshvec')
   AND n.nspname !~ '^pg_(toast|temp)'
 ORDER BY c.oid DESC LIMIT 5000

-- relation: what a table is: oid, schema, name, kind, whether it has a parent, and row security
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text,
       EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid),
       c.relrowsecurity
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = %(table)s
   AND n.nspname = coalesce(%(schema)s::text, 'public')

-- key: the columns of the primary key, or of the first unique index that allows no NULL: with collation and
-- operators; and that index where it orders them otherwise than ORDER BY does, by which pages are read: by
-- another collation than the column's, or another operator class than the default of its type, of a domain's
-- base type, or else of one that the type is taken for; and an equality by which nothing is merged or
-- hashed, as triggers compare a statement's rows: it does not say so, or without an operator class for that,
-- or is a function in SQL that plans take apart
SELECT a.attname::text, a.attnum::int, format_type(a.atttypid, a.atttypmod), a.atttypid::bigint,
       a.atttypmod::int,
       CASE WHEN a.attcollation <> 0 THEN ARRAY[cn.nspname::text, co.collname::text] END,
       ARRAY[en.nspname::text, eq.oprname::text], ARRAY[gn.nspname::text, gt.oprname::text], eq.oid::bigint,
       ep.oid::bigint,
       CASE WHEN NOT i.orders_alike THEN i.indexrelid::regclass::text END,
       CASE WHEN NOT (eq.oprcanmerge OR eq.oprcanhash) OR el.lanname = 'sql'
              OR eq.oprcanhash AND NOT EXISTS (
                   SELECT FROM pg_amop AS h JOIN pg_am ON pg_am.oid = h.amopmethod
                    WHERE h.amopopr = eq.oid AND pg_am.amname = 'hash')
            THEN eq.oid::regoperator::text END
  FROM (SELECT i.indexrelid, i.indrelid, i.indkey, i.indclass, i.indnkeyatts, o.orders_alike
          FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_am ON pg_am.oid = ic.relam
         CROSS JOIN LATERAL (
           SELECT bool_and(k.collated = a.attcollation AND EXISTS (
                    SELECT FROM pg_opclass AS c JOIN pg_opclass AS d USING (opcmethod, opcfamily, opcintype)
                     WHERE c.oid = k.opclass AND d.opcdefault AND NOT EXISTS (
                       WITH RECURSIVE base (oid) AS (
                         SELECT a.atttypid
                         UNION
                         SELECT t.typbasetype FROM base JOIN pg_type AS t USING (oid) WHERE t.typtype = 'd'
                       )
                       SELECT FROM pg_opclass AS own JOIN base ON base.oid = own.opcintype
                        WHERE own.opcmethod = c.opcmethod AND own.opcdefault
                          AND own.opcfamily <> c.opcfamily))) AS orders_alike
             FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1], i.indclass::oid[], i.indcollation::oid[])
                  AS k (attnum, opclass, collated)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum) AS o
         WHERE amname = 'btree' AND i.indrelid = %(oid)s::oid
           AND i.indisunique AND i.indisvalid AND i.indimmediate
           AND i.indpred IS NULL AND i.indexprs IS NULL
           AND NOT EXISTS (SELECT FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) AS k (attnum)
                             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                            WHERE NOT a.attnotnull OR EXISTS (
                              SELECT FROM pg_constraint n  -- since 18: NOT NULL for new rows alone
                               WHERE n.conrelid = i.indrelid AND n.contype = 'n' AND NOT n.convalidated
                                 AND n.conkey[1] = k.attnum))
         ORDER BY i.indisprimary DESC, o.orders_alike DESC, i.indexrelid LIMIT 1) AS i
 CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS k (attnum, opclass, place)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
  LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
  JOIN pg_opclass oc ON oc.oid = k.opclass
  JOIN pg_amop ea ON ea.amopfamily = oc.opcfamily AND ea.amopstrategy = 3
                 AND ea.amoplefttype = oc.opcintype AND ea.amoprighttype = oc.opcintype
  JOIN pg_operator eq ON eq.oid = ea.amopopr JOIN pg_namespace en ON en.oid = eq.oprnamespace
  JOIN pg_proc ep ON ep.oid = eq.oprcode JOIN pg_language el ON el.oid = ep.prolang
  JOIN pg_amop ga ON ga.amopfamily = oc.opcfamily AND ga.amopstrategy = 5
                 AND ga.amoplefttype = oc.opcintype AND ga.amoprighttype = oc.opcintype
  JOIN pg_operator gt ON gt.oid = ga.amopopr JOIN pg_namespace gn ON gn.oid = gt.oprnamespace
 WHERE k.place <= i.indnkeyatts
 ORDER BY k.place

-- deferrable: a key that cannot be used because its uniqueness may be checked later
SELECT conname::text FROM pg_constraint
 WHERE conrelid = %(oid)s::oid AND contype IN ('p', 'u') AND condeferrable ORDER BY contype LIMIT 1

-- columns: the table's columns: name and number
SELECT a.attname::text, a.attnum::int FROM pg_attribute a
 WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum

-- types_of_others: types of somebody who is no superuser, where this role is one
SELECT t.oid::regtype::text, o.rolname::text FROM pg_type t JOIN pg_roles o ON o.oid = t.typowner
 WHERE t.oid = ANY (%(types)s::oid[]) AND NOT o.rolsuper
   AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)

-- relations: the table and every partition or child: oid, schema, name, kind. One that is being detached
-- concurrently is seen by no new query, and cannot be altered.
WITH RECURSIVE family AS (
  SELECT %(oid)s::oid AS oid
  UNION
  SELECT inhrelid FROM pg_inherits JOIN family ON inhparent = family.oid AND NOT inhdetachpending
)
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text
  FROM family JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'f') ORDER BY c.oid = %(oid)s::oid DESC, c.oid

-- check_text: parse the text's expression without reading a row
SELECT {text} AS freshvec_text FROM {source} WHERE false

-- vector_schema: where pgvector lives, and whether the server could install it
SELECT (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
         WHERE e.extname = 'vector'),
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')
