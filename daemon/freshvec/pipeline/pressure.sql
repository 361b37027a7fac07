-- load: the replica that is furthest behind, if it is further than it may be; whether a checkpoint is late,
-- and the bytes of WAL since the last one that has ended began; whether this role sees all of this, and its
-- name. A checkpoint is late that has let WAL grow beyond max_wal_size and makes no rests any more, since it
-- is behind its schedule: at full speed it ends, or catches up, once fewer write.
SELECT r.name, r.seconds,
       w.bytes > pg_size_bytes(current_setting('max_wal_size')) AND EXISTS (
         SELECT FROM pg_stat_activity
          WHERE backend_type = 'checkpointer'
            AND coalesce(wait_event, '') NOT IN ('CheckpointerMain', 'CheckpointWriteDelay')),
       w.bytes, pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), current_user::text
  FROM (SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), redo_lsn)::bigint AS bytes
          FROM pg_control_checkpoint()) AS w
  LEFT JOIN LATERAL (
    SELECT coalesce(nullif(application_name, ''), pid::text) AS name,
           extract(epoch FROM replay_lag)::float8 AS seconds
      FROM pg_stat_replication WHERE replay_lag > make_interval(secs => %(most_seconds)s)
     ORDER BY replay_lag DESC LIMIT 1) AS r ON true
