-- oid: of a table, NULL where it is not there
SELECT to_regclass(%(name)s)::oid::bigint

-- columns: the columns of a target before what it keeps of a vector: name, type, collation
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.attcollation <> 0 THEN ARRAY[cn.nspname::text, co.collname::text] END
  FROM pg_attribute a
  LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
 WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped
   AND a.attnum < (SELECT min(attnum) FROM pg_attribute AS kept
                    WHERE kept.attrelid = a.attrelid AND NOT kept.attisdropped
                      AND kept.attname IN ('embedding', 'vector_hash', 'passages'))
 ORDER BY a.attnum

-- has_expressions: whether an index of it evaluates something, which is made anew with a column's type
SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = %(oid)s::oid
                  AND (indexprs IS NOT NULL OR indpred IS NOT NULL))

-- probe: an empty table of such a key; it is never kept
CREATE TEMPORARY TABLE freshvec_probe ({columns}, PRIMARY KEY ({names}))

-- files: the files of that table and of its index
SELECT array_agg(pg_relation_filenode(c.oid)::bigint ORDER BY c.relkind) FROM pg_class AS c
 WHERE c.oid = 'pg_temp.freshvec_probe'::regclass
    OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'pg_temp.freshvec_probe'::regclass)

-- retype: follow a key column of the source
ALTER TABLE {table} ALTER COLUMN {column} TYPE {type}

-- rename: follow a key column of the source
ALTER TABLE {table} RENAME COLUMN {column} TO {name}

-- drop_queue: take the queue away: it is made anew, since a walk answers all that is in it
DROP TABLE IF EXISTS {queue}

-- drop_copies: what stands beside a target until it takes its place
DROP TABLE IF EXISTS {copies}

-- copy: the rows of a target, under the key that they have now. A value comes over as its text; one that the
-- new type does not take stays behind. Whether a vector is still that of its row, the walk sees by the hash.
INSERT INTO {copy} ({keys}, {kept})
SELECT {new_keys}, {kept} FROM {table} AS t WHERE {are_valid} ON CONFLICT DO NOTHING

-- drop_tables: the target, whose place its copy takes
DROP TABLE IF EXISTS {tables}

-- move: the copy takes the place of the target
ALTER TABLE {copy} SET SCHEMA {schema};
ALTER TABLE {moved} RENAME TO {name}
