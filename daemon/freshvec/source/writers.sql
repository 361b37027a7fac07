-- open: transactions that have written, or write, to these tables, and their sessions. One that is prepared
-- keeps its number, and has no session.
SELECT l.virtualtransaction, max(l.pid)
  FROM pg_locks AS l
 WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.relation = ANY (%(tables)s::oid[])
 GROUP BY l.virtualtransaction
