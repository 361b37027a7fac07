-- measured: keep what the worker is at and what it measured, for `progress` and `status` to show
INSERT INTO freshvec.activity (
  sync, worker, device, phase, paused, rows_per_second, rows_written, texts_truncated, last_error,
  batch_tokens, device_memory_used_bytes, device_memory_total_bytes)
SELECT name, %(worker)s, %(device)s, %(phase)s, %(paused)s,
       %(rows_per_second)s + coalesce((SELECT sum(m.rows_per_second) FROM freshvec.member AS m
                                        WHERE m.sync = s.name AND NOT m.leads), 0),
       %(rows_written)s,
       %(texts_truncated)s, %(last_error)s,
       %(batch_tokens)s, %(device_memory_used_bytes)s, %(device_memory_total_bytes)s
  FROM freshvec.sync AS s WHERE name = %(sync)s
    ON CONFLICT (sync) DO UPDATE
   SET worker = excluded.worker, device = excluded.device, measured_at = now(),
       phase_since = CASE WHEN (activity.worker, activity.phase) = (excluded.worker, excluded.phase)
                          THEN activity.phase_since ELSE now() END,
       phase = excluded.phase, paused = excluded.paused,
       rows_per_second = excluded.rows_per_second, rows_written = excluded.rows_written,
       texts_truncated = excluded.texts_truncated, last_error = excluded.last_error,
       batch_tokens = excluded.batch_tokens, device_memory_used_bytes = excluded.device_memory_used_bytes,
       device_memory_total_bytes = excluded.device_memory_total_bytes

-- add_lags: so many changes more, by how long they waited
INSERT INTO freshvec.lag_hour AS l (sync, hour, counts, total_ms, longest_ms)
SELECT name, date_trunc('hour', now()), %(counts)s::bigint[], %(total_ms)s, %(longest_ms)s
  FROM freshvec.sync WHERE name = %(sync)s
    ON CONFLICT (sync, hour) DO UPDATE
   SET counts = freshvec.add_counts(l.counts, excluded.counts), total_ms = l.total_ms + excluded.total_ms,
       longest_ms = greatest(l.longest_ms, excluded.longest_ms)

-- fold_old_lags: hours older than a week become one row, so that the sums over all rows only grow
WITH old AS (
  DELETE FROM freshvec.lag_hour
   WHERE sync = %(sync)s AND hour > '-infinity' AND hour < date_trunc('hour', now() - interval '7 days')
  RETURNING counts, total_ms, longest_ms
)
INSERT INTO freshvec.lag_hour AS l (sync, hour, counts, total_ms, longest_ms)
SELECT %(sync)s, '-infinity', freshvec.sum_counts(counts), sum(total_ms), max(longest_ms)
  FROM old HAVING count(*) > 0
    ON CONFLICT (sync, hour) DO UPDATE
   SET counts = freshvec.add_counts(l.counts, excluded.counts), total_ms = l.total_ms + excluded.total_ms,
       longest_ms = greatest(l.longest_ms, excluded.longest_ms)
