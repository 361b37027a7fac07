-- owner: the table's owner where that is no superuser, and this role is one
SELECT o.rolname::text FROM pg_class AS c JOIN pg_roles AS o ON o.oid = c.relowner
 WHERE c.oid = %(oid)s::oid AND NOT o.rolsuper
   AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)

-- column: its type, whether it must have a value, and whether Postgres makes that
SELECT format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated <> '' OR a.attidentity <> ''
  FROM pg_attribute AS a
 WHERE a.attrelid = %(oid)s::oid AND a.attname = %(column)s AND a.attnum > 0 AND NOT a.attisdropped
