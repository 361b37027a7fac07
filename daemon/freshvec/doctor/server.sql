-- version: the server's version, as text and as number, and whether it is a standby
SELECT current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery()

-- pgvector: the version that is installed, and the one that could be
SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector')

-- sessions: how many there may be for ordinary roles, and how many there are
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
       (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend')

-- locks: how many there is room for, beside what each session has without asking
SELECT current_setting('max_locks_per_transaction')::int
       * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)

-- notifications: how full their queue is, and the oldest transaction of a session that listens for long
SELECT pg_notification_queue_usage(),
       (SELECT format('pid %%s (%%s)', pid, application_name) FROM pg_stat_activity
         WHERE xact_start < clock_timestamp() - make_interval(secs => %(seconds)s)
           AND state LIKE 'idle in transaction%%'
         ORDER BY xact_start LIMIT 1)

-- two_phase: how many transactions may be prepared, and those that have been for long
SELECT current_setting('max_prepared_transactions')::int,
       (SELECT string_agg(gid, ', ') FROM pg_prepared_xacts WHERE prepared < now() - interval '10 minutes')

-- slots: replication slots: name, whether somebody uses it, the bytes of log that it keeps, and its state
SELECT slot_name::text, active, coalesce(pg_wal_lsn_diff(
         CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
         restart_lsn), 0)::bigint, wal_status
  FROM pg_replication_slots ORDER BY 3 DESC

-- replicas: replicas and how far behind they are, in seconds
SELECT application_name, coalesce(extract(epoch FROM replay_lag), 0)::float8 FROM pg_stat_replication

-- log: settings of the write-ahead log
SELECT pg_size_bytes(current_setting('max_wal_size')), current_setting('max_wal_size'),
       current_setting('fsync')::boolean, current_setting('full_page_writes')::boolean

-- checkpoints: those that came by time, and those that came because of much log
SELECT num_timed, num_requested FROM pg_stat_checkpointer

-- checkpoints_before_17: the same
SELECT checkpoints_timed, checkpoints_req FROM pg_stat_bgwriter

-- temporary_files: how much of them a session may have, in kB; -1 for no limit
SELECT setting::bigint FROM pg_settings WHERE name = 'temp_file_limit'

-- autovacuum: whether it runs at all
SELECT current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean

-- unvacuumed: tables of syncs that nobody vacuums, or with many dead rows: name, why, command
SELECT c.oid::regclass::text,
       CASE WHEN 'autovacuum_enabled=false' = ANY (c.reloptions) THEN 'autovacuum is off for it'
            ELSE format('%%s of its rows are dead', pg_stat_get_dead_tuples(c.oid)) END,
       CASE WHEN 'autovacuum_enabled=false' = ANY (c.reloptions)
            THEN format('ALTER TABLE %%s RESET (autovacuum_enabled);', c.oid::regclass)
            ELSE format('VACUUM (ANALYZE) %%s;', c.oid::regclass) END
  FROM pg_class c
 WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) AS name)
   AND ('autovacuum_enabled=false' = ANY (c.reloptions)
        OR pg_stat_get_dead_tuples(c.oid) > 10000
           AND pg_stat_get_dead_tuples(c.oid) > pg_stat_get_live_tuples(c.oid) / 2)
