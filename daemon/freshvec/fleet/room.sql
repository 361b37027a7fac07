-- left: sessions that the server, the database and the role have left for one that is no superuser
SELECT least(
         current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0)
           - (SELECT sum(numbackends)::int FROM pg_stat_database),
         CASE WHEN d.datconnlimit >= 0 THEN d.datconnlimit - pg_stat_get_db_numbackends(d.oid) END,
         CASE WHEN r.rolconnlimit >= 0 THEN r.rolconnlimit
              - (SELECT count(*)::int FROM pg_stat_activity WHERE usesysid = r.oid) END),
       current_setting('max_connections')::int
  FROM pg_database AS d, pg_roles AS r
 WHERE d.datname = current_database() AND r.rolname = current_user
