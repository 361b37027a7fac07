-- own: try to become the owner of a sync
SELECT pg_try_advisory_lock(%(class)s, %(sync)s)

-- owner: who owns a sync: its backend and what it calls itself
SELECT l.pid, a.application_name FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'advisory' AND l.classid = %(class)s AND l.objid = %(sync)s AND l.objsubid = 2 AND l.granted
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
