-- What the worker's device has left and how big the batches are that it is given.

ALTER TABLE embedsync.activity
  ADD COLUMN batch_tokens bigint,               -- padded tokens a batch, where the search for the best size stands
  ADD COLUMN device_memory_used_bytes bigint,   -- of a GPU, by all its processes; NULL on a CPU
  ADD COLUMN device_memory_total_bytes bigint;

-- Replaced and not dropped: what others were granted on it stays.
CREATE OR REPLACE VIEW embedsync.status AS
  SELECT s.*, a.batch_tokens, a.device_memory_used_bytes, a.device_memory_total_bytes
    FROM embedsync.sync_status() AS s LEFT JOIN embedsync.activity AS a USING (sync);
