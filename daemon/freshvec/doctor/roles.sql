-- me: who is connected: superuser, sees every row, may make the schema, and whether that has been made
SELECT current_user::text, rolsuper, rolsuper OR rolbypassrls,
       has_database_privilege(current_database(), 'CREATE'), to_regclass('freshvec.sync') IS NOT NULL,
       has_database_privilege(current_database(), 'TEMPORARY')
  FROM pg_roles WHERE rolname = current_user

-- worker: the role that is to run the daemon: whether it may log in, is a superuser, sees every row
SELECT rolcanlogin, rolsuper, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = %(role)s

-- on_table: what a role may do with a table: read it, make triggers on it, and whether its policies hide rows
SELECT has_table_privilege(%(role)s, c.oid, 'SELECT'), has_table_privilege(%(role)s, c.oid, 'TRIGGER'),
       c.relrowsecurity AND (c.relforcerowsecurity OR NOT pg_has_role(%(role)s, c.relowner, 'USAGE')),
       pg_get_userbyid(c.relowner)::text
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = coalesce(%(schema)s::text, 'public') AND c.relname = %(table)s
