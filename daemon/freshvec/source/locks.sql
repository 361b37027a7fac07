-- wait_at_most: for a lock, in this transaction
SET LOCAL lock_timeout = {wait}

-- no_pauses: this transaction ends if nothing comes from this process for so long
SET LOCAL idle_in_transaction_session_timeout = {longest}

-- with_partitions: a table, and its partitions if it has any
WITH RECURSIVE family AS (
  SELECT c.oid, c.relkind FROM pg_class c WHERE c.oid = %(oid)s::oid
  UNION
  SELECT c.oid, c.relkind FROM pg_inherits i JOIN family f ON i.inhparent = f.oid AND f.relkind = 'p'
    JOIN pg_class c ON c.oid = i.inhrelid
)
SELECT n.nspname::text, c.relname::text
  FROM family JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
 ORDER BY c.oid = %(oid)s::oid DESC, c.oid

-- existing: those of these tables that exist, in their order, and whether this role has their owner's rights
SELECT n.nspname::text, c.relname::text, pg_has_role(c.relowner, 'USAGE')
  FROM unnest(%(tables)s::text[]) WITH ORDINALITY AS given (name, place)
  JOIN pg_class c ON c.oid = to_regclass(name) JOIN pg_namespace n ON n.oid = c.relnamespace
 ORDER BY place

-- holders: who holds these tables in one of these modes, then who waits for that, the longest transaction
-- first. A prepared transaction has no backend. What this role may not see of a session has no state.
SELECT ARRAY[n.nspname::text, c.relname::text], l.mode, l.pid,
       CASE WHEN a.backend_type = 'autovacuum worker' THEN 'autovacuum'
            ELSE coalesce(a.application_name, '') END,
       coalesce(a.usename::text, p.owner::text, ''), p.gid,
       to_char(coalesce(a.xact_start, p.prepared) AT TIME ZONE 'UTC', 'HH24:MI:SS'),
       extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8,
       coalesce(a.state, ''), CASE WHEN a.state IS NULL THEN '' ELSE left(a.query, 200) END
  FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
                      AND x.virtualtransaction = l.virtualtransaction
  LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
 WHERE l.locktype = 'relation' AND l.mode = ANY (%(modes)s::text[])
   AND l.pid IS DISTINCT FROM pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.relation IN (SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) AS name)
 ORDER BY l.granted DESC, coalesce(a.xact_start, p.prepared) NULLS LAST, l.pid

-- lock: tables without their descendants
LOCK TABLE {tables} IN {mode} MODE {nowait}

-- pause: before the next attempt
SELECT pg_sleep(%(seconds)s)

-- await_vacuum: as long as it takes until Postgres has an autovacuum give way, within so many seconds
SELECT set_config('lock_timeout', least(setting::float8 + 500, 1000 * %(seconds)s + 1)::int::text, true)
  FROM pg_settings WHERE name = 'deadlock_timeout'
