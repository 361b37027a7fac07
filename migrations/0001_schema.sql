-- The freshvec schema: what is kept about every sync. Queues, targets and triggers are made a sync each, by `apply`.

CREATE TABLE freshvec.sync (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  source_schema text NOT NULL,
  source_table text NOT NULL,
  target_schema text NOT NULL,
  target_table text NOT NULL,
  model text NOT NULL,
  fingerprint bytea NOT NULL,
  definition text NOT NULL,             -- the DDL as applied: the same definition again changes nothing
  backfill_after text[],                -- the last key up to which every row is written
  backfill_done boolean NOT NULL DEFAULT false,
  UNIQUE (target_schema, target_table)
);

-- One sequence fences all writes: whoever drew the higher number read the text later.
CREATE SEQUENCE freshvec.fence AS bigint CACHE 1;

-- Requests to compare a whole table. Append-only, so that a trigger which fails never waits for another.
CREATE TABLE freshvec.rescan (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  sync text NOT NULL,
  reason text NOT NULL,
  asked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What the worker measured last; written every few seconds while there is work.
CREATE TABLE freshvec.activity (
  sync text PRIMARY KEY REFERENCES freshvec.sync (name) ON DELETE CASCADE,
  worker text NOT NULL,
  device text NOT NULL,
  measured_at timestamptz NOT NULL DEFAULT now(),
  rows_per_second float8 NOT NULL,
  rows_written bigint NOT NULL,
  texts_truncated bigint NOT NULL,
  lag_p50_ms float8,
  lag_p99_ms float8,
  last_error text,
  batch_tokens bigint,               -- padded tokens per batch, where the search for the best size stands
  device_memory_used_bytes bigint,   -- of a GPU, by all its processes; NULL on a CPU
  device_memory_total_bytes bigint
);

-- The bell that wakes the worker.
CREATE FUNCTION freshvec.ring(sync text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT pg_notify('freshvec', sync) $$;
REVOKE ALL ON FUNCTION freshvec.ring(text) FROM PUBLIC;

-- Rows of a table: counted where that is quick, else estimated from the statistics.
CREATE FUNCTION freshvec.count_rows(relation regclass, condition text DEFAULT 'true') RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  estimate float8;
  counted bigint;
BEGIN
  SELECT sum(reltuples) INTO estimate FROM pg_partition_tree(relation) JOIN pg_class ON oid = relid WHERE isleaf;
  IF coalesce(estimate, 0) > 2000000 AND condition = 'true' THEN
    RETURN estimate::bigint;
  END IF;
  EXECUTE format('SELECT count(*) FROM %s WHERE %s', relation, condition) INTO counted;
  RETURN counted;
END $$;

CREATE FUNCTION freshvec.sync_status() RETURNS TABLE (
  sync text, source text, target text, model text, rows_total bigint, rows_fresh bigint, rows_failed bigint,
  coverage float8, backlog bigint, oldest_unfresh_seconds float8, rescan_waiting boolean, backfill_done boolean,
  owner_pid int, device text, rows_per_second float8, eta_seconds float8, lag_p50_ms float8, lag_p99_ms float8,
  texts_truncated bigint, last_error text
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s freshvec.sync;
  a freshvec.activity;
  source_table regclass;
  target_table regclass;
  queued bigint;
BEGIN
  FOR s IN SELECT * FROM freshvec.sync ORDER BY name LOOP
    SELECT * INTO a FROM freshvec.activity act WHERE act.sync = s.name;
    sync := s.name;
    source := format('%I.%I', s.source_schema, s.source_table);
    target := format('%I.%I', s.target_schema, s.target_table);
    model := s.model;
    source_table := to_regclass(source);
    target_table := to_regclass(target);
    rows_total := NULL; rows_fresh := NULL; rows_failed := NULL; queued := NULL; oldest_unfresh_seconds := NULL;
    IF source_table IS NOT NULL AND target_table IS NOT NULL THEN
      rows_total := freshvec.count_rows(source_table);
      rows_fresh := freshvec.count_rows(target_table, format('fingerprint = %L AND encode_error IS NULL', s.fingerprint));
      rows_failed := freshvec.count_rows(target_table, 'encode_error IS NOT NULL');
    END IF;
    IF to_regclass('freshvec.queue_' || s.name) IS NOT NULL THEN
      EXECUTE format('SELECT count(*), extract(epoch FROM clock_timestamp() - min(changed_at))::float8 FROM freshvec.%I', 'queue_' || s.name)
        INTO queued, oldest_unfresh_seconds;
    END IF;
    backlog := queued + CASE WHEN s.backfill_done THEN 0 ELSE greatest(rows_total - rows_fresh - rows_failed, 0) END;
    coverage := CASE WHEN rows_total > 0
                     THEN least(1, greatest(0, rows_fresh - queued)::float8 / rows_total) ELSE 1 END;
    rescan_waiting := EXISTS (SELECT FROM freshvec.rescan r WHERE r.sync = s.name);
    backfill_done := s.backfill_done;
    owner_pid := (SELECT l.pid FROM pg_locks l
                   WHERE l.locktype = 'advisory' AND l.classid = 1719035235 AND l.objid = s.id AND l.granted
                     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1);
    device := a.device;
    rows_per_second := CASE WHEN a.measured_at > now() - interval '30 seconds' THEN a.rows_per_second END;
    eta_seconds := CASE WHEN backlog = 0 THEN 0 WHEN rows_per_second > 0 THEN backlog / rows_per_second END;
    lag_p50_ms := a.lag_p50_ms;
    lag_p99_ms := a.lag_p99_ms;
    texts_truncated := a.texts_truncated;
    last_error := a.last_error;
    RETURN NEXT;
  END LOOP;
END $$;

CREATE VIEW freshvec.status AS
  SELECT s.*, a.batch_tokens, a.device_memory_used_bytes, a.device_memory_total_bytes
    FROM freshvec.sync_status() AS s LEFT JOIN freshvec.activity AS a USING (sync);

-- Rows whose text could not be encoded, with the error: what `freshvec status` lists and `freshvec retry` tries again.

CREATE FUNCTION freshvec.failures(most int DEFAULT 10) RETURNS TABLE (sync text, key jsonb, error text, failed_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s freshvec.sync;
BEGIN
  FOR s IN SELECT * FROM freshvec.sync ORDER BY name LOOP
    IF to_regclass(format('%I.%I', s.target_schema, s.target_table)) IS NOT NULL THEN
      RETURN QUERY EXECUTE format(
        'SELECT %L::text, to_jsonb(t) - %L::text[], t.encode_error, t.embedded_at FROM %I.%I AS t
          WHERE t.encode_error IS NOT NULL ORDER BY t.embedded_at DESC LIMIT %L',
        s.name, '{embedding,content_hash,fingerprint,fence,encode_error,embedded_at}',
        s.target_schema, s.target_table, most);
    END IF;
  END LOOP;
END $$;
