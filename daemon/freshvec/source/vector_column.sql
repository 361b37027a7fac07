-- column: its type, whether it must have a value, and whether Postgres makes that
SELECT format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated <> '' OR a.attidentity <> ''
  FROM pg_attribute AS a
 WHERE a.attrelid = %(oid)s::oid AND a.attname = %(column)s AND a.attnum > 0 AND NOT a.attisdropped
