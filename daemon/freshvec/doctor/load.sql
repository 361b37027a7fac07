-- is_standby: whether nothing can be committed here
SELECT pg_is_in_recovery()

-- nothing: the way there and back
SELECT 1

-- commit_for_certain: the next commit waits for the disk, unlike ours
SET LOCAL synchronous_commit = on

-- write: something for the commit to wait for, though no row is written: a transaction's number alone is not
SELECT pg_logical_emit_message(true, 'freshvec', 'how long does a commit take?')

-- oldest: the longest open transaction: who, what they are at, for how many seconds
SELECT pid, coalesce(nullif(application_name, ''), usename, backend_type), coalesce(state, backend_type),
       extract(epoch FROM now() - xact_start)::float8
  FROM pg_stat_activity
 WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type IN ('client backend', 'walsender')
 ORDER BY xact_start LIMIT 1

-- waiting: sessions that have waited for a lock for seconds, and the first one that is in their way
SELECT count(*)::int, (SELECT format('pid %s (%s)', b.pid, b.application_name) FROM pg_stat_activity b
                        WHERE b.pid = (array_agg((pg_blocking_pids(a.pid))[1]))[1])
  FROM pg_stat_activity a
 WHERE wait_event_type = 'Lock' AND query_start < now() - interval '5 seconds'

-- hits: what share of the blocks of targets and their indexes were found in memory, and how many were not
SELECT coalesce(sum(hit) / nullif(sum(hit + missed), 0), 1)::float8, coalesce(sum(missed), 0)::bigint
  FROM (SELECT pg_stat_get_blocks_fetched(c.oid) - pg_stat_get_blocks_hit(c.oid) AS missed,
               pg_stat_get_blocks_hit(c.oid) AS hit
          FROM pg_class c
         WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(%(targets)s::text[]) AS name)
            OR c.oid IN (SELECT i.indexrelid
                           FROM pg_index i JOIN unnest(%(targets)s::text[]) AS name
                             ON i.indrelid = to_regclass(name))
       ) AS blocks

-- clock: the server's time, in seconds
SELECT extract(epoch FROM clock_timestamp())::float8
