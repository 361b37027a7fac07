-- measured: keep what the worker measured, for `status` to show
INSERT INTO freshvec.activity (
  sync, worker, device, rows_per_second, rows_written, texts_truncated, lag_p50_ms, lag_p99_ms, last_error,
  batch_tokens, device_memory_used_bytes, device_memory_total_bytes)
VALUES (
  %(sync)s, %(worker)s, %(device)s, %(rows_per_second)s, %(rows_written)s,
  %(texts_truncated)s, %(lag_p50_ms)s, %(lag_p99_ms)s, %(last_error)s,
  %(batch_tokens)s, %(device_memory_used_bytes)s, %(device_memory_total_bytes)s)
    ON CONFLICT (sync) DO UPDATE
   SET worker = excluded.worker, device = excluded.device, measured_at = now(),
       rows_per_second = excluded.rows_per_second,
       rows_written = excluded.rows_written, texts_truncated = excluded.texts_truncated,
       lag_p50_ms = coalesce(excluded.lag_p50_ms, activity.lag_p50_ms),
       lag_p99_ms = coalesce(excluded.lag_p99_ms, activity.lag_p99_ms), last_error = excluded.last_error,
       batch_tokens = excluded.batch_tokens, device_memory_used_bytes = excluded.device_memory_used_bytes,
       device_memory_total_bytes = excluded.device_memory_total_bytes
