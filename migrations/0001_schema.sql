-- The freshvec schema: what is kept about every sync. Queues, targets and triggers are made per sync, by
-- `apply`.

CREATE TABLE freshvec.sync (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  source_schema text NOT NULL,
  source_table text NOT NULL,
  source_oid oid NOT NULL,
  target_schema text NOT NULL,
  target_table text NOT NULL,
  vectors_schema text NOT NULL,
  vectors_table text NOT NULL,            -- that the vectors are in
  vectors_column text NOT NULL,
  model text NOT NULL,
  fingerprint bytea NOT NULL,
  definition text NOT NULL,               -- what was declared, and of which table: another one is walked anew
  shape text NOT NULL,                    -- sha256 of the DDL that made its objects
  identity text NOT NULL DEFAULT '',      -- what the catalogue said of all this when it was last bound
  generation bigint NOT NULL DEFAULT 0,   -- rises with every applied definition and every new binding
  epoch bigint NOT NULL DEFAULT 0,        -- rises with every change of owner
  granted text[] NOT NULL DEFAULT '{}',   -- roles that were given the target because they may read the source
  backfill_after text[],                  -- the last key up to which every row is written
  backfill_done boolean NOT NULL DEFAULT false,
  rows_embedded bigint NOT NULL DEFAULT 0,    -- target rows with a vector of the model, put right by walks
  rows_failed bigint NOT NULL DEFAULT 0,      -- target rows with an error, likewise
  walk_proves boolean NOT NULL DEFAULT false, -- the walk only proves: nothing is known to be missing
  walk_rows bigint NOT NULL DEFAULT 0,        -- source rows that the walk under way has passed
  walk_found bigint NOT NULL DEFAULT 0,       -- rows among them that were not fresh and not queued
  walk_started_at timestamptz,
  walk_fence bigint NOT NULL DEFAULT 0,   -- the highest fence before it: a higher one was drawn since
  rows_walked bigint,                     -- source rows that the last whole walk passed
  proven_at timestamptz,                  -- when the last whole walk ended: all is fresh since its start
  proven_found bigint,                    -- what that walk had found and mended
  proven_vectors bigint,                  -- vectors it encoded again and found the same
  refused bigint NOT NULL DEFAULT 0,      -- writes that the fence refused though they were of another text
  trouble text,                           -- why the sync is not kept as declared, with the command that helps
  UNIQUE (target_schema, target_table)
);

-- One sequence orders all writes: a read that deletes a queue entry took its text after that entry was
-- visible.
CREATE SEQUENCE freshvec.fence AS bigint CACHE 1;

-- Requests to compare a whole table. Append-only, so that a trigger which fails never waits for another.
CREATE TABLE freshvec.rescan (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),  -- a sequence would show in the application's lastval()
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
  phase text NOT NULL,               -- what it was at: see freshvec.progress
  phase_since timestamptz NOT NULL DEFAULT now(),
  paused text,                       -- why bulk work waits
  rows_per_second float8 NOT NULL,
  rows_written bigint NOT NULL,
  texts_truncated bigint NOT NULL,
  last_error text,
  batch_tokens bigint,               -- padded tokens per batch, where the search for the best size stands
  device_memory_used_bytes bigint,   -- of a GPU, by all its processes; NULL on a CPU
  device_memory_total_bytes bigint
);

-- The bell: notify, where the sync's keeper wants to be rung, which it shows by an exclusive lock. Who gets
-- the lock shared keeps it until its transaction has ended, so that the keeper knows of it. Where the
-- notification queue is filling, because some session does not read its own, a sweep has to find the change:
-- with a full queue the commit would fail.
CREATE FUNCTION freshvec.ring(sync text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pg_try_advisory_xact_lock_shared(1719035237, hashtext(sync)) AND pg_notification_queue_usage() < 0.5
  THEN
    PERFORM pg_notify('freshvec', sync);
  END IF;
END $$;
REVOKE ALL ON FUNCTION freshvec.ring(text) FROM PUBLIC;

-- What a trigger calls when it cannot note a change: the whole table will be compared. It never fails nor
-- waits, and asks once: whoever relies on a request that is there already keeps it there until its own
-- transaction has ended.
CREATE FUNCTION freshvec.ask_for_walk(name text, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  is_asked boolean;
BEGIN
  BEGIN
    PERFORM FROM freshvec.rescan WHERE sync = name AND reason = why LIMIT 1 FOR KEY SHARE SKIP LOCKED;
    is_asked := FOUND;
  EXCEPTION WHEN serialization_failure THEN
    is_asked := false;  -- answered since this transaction's snapshot
  END;
  IF NOT is_asked THEN
    INSERT INTO freshvec.rescan (sync, reason) VALUES (name, why);
    PERFORM freshvec.ring(name);
  END IF;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'freshvec: sync % could not ask for a walk (%); run freshvec verify --repair: %',
    name, why, SQLERRM;
END $$;
REVOKE ALL ON FUNCTION freshvec.ask_for_walk(text, text) FROM PUBLIC;

-- DDL on a table that is kept: the worker looks at once instead of at its next sweep. It must never fail the
-- DDL, and rings for these tables alone: a notification takes a lock of the whole cluster.
CREATE FUNCTION freshvec.notice_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('max_prepared_transactions') <> '0' OR pg_notification_queue_usage() >= 0.5 THEN
    RETURN;  -- a transaction that has notified cannot be prepared, and with a full queue it fails
  ELSIF TG_EVENT = 'sql_drop' THEN
    PERFORM pg_notify('freshvec', '') FROM pg_event_trigger_dropped_objects() AS c
       JOIN freshvec.sync AS s ON c.objid = s.source_oid
            OR c.object_identity = format('%I.%I', s.source_schema, s.source_table)
      LIMIT 1;
  ELSE
    PERFORM pg_notify('freshvec', '') FROM pg_event_trigger_ddl_commands() AS c
       JOIN freshvec.sync AS s ON c.objid = s.source_oid
            OR c.object_identity = format('%I.%I', s.source_schema, s.source_table)
      LIMIT 1;
  END IF;
EXCEPTION WHEN OTHERS THEN
  RETURN;
END $$;

-- Only a superuser may create these; without them the worker looks at each sweep.
DO $$
BEGIN
  CREATE EVENT TRIGGER freshvec_ddl ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
    EXECUTE FUNCTION freshvec.notice_ddl();
  CREATE EVENT TRIGGER freshvec_drop ON sql_drop
    WHEN TAG IN ('DROP TABLE', 'DROP SCHEMA', 'ALTER TABLE') EXECUTE FUNCTION freshvec.notice_ddl();
EXCEPTION WHEN insufficient_privilege THEN
  NULL;
END $$;

-- Rows of a table, as the statistics say.
CREATE FUNCTION freshvec.estimate_rows(relation regclass) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT sum(greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0))::bigint
    FROM pg_class c
   WHERE c.oid = relation AND c.relkind = 'r'
      OR c.oid IN (SELECT relid FROM pg_partition_tree(relation) WHERE isleaf)
      OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = relation)
$$;
REVOKE ALL ON FUNCTION freshvec.estimate_rows(regclass) FROM PUBLIC;

-- Rows of a table: counted where that is quick and allowed, else estimated.
CREATE FUNCTION freshvec.count_rows(relation regclass) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  estimate bigint := freshvec.estimate_rows(relation);
  counted bigint;
BEGIN
  -- Nothing of the table's owner may run here with the rights of whom status belongs to: no policy, and no
  -- view that takes the table's place between this look and the count.
  IF coalesce(estimate, 0) > 50000 OR NOT has_table_privilege(relation, 'SELECT')
     OR NOT EXISTS (SELECT FROM pg_class WHERE oid = relation AND relkind IN ('r', 'p') AND NOT relrowsecurity
                       AND pg_has_role(relowner, current_user::regrole, 'USAGE')) THEN
    RETURN estimate;
  END IF;
  EXECUTE format('SELECT count(*) FROM (SELECT FROM %s LIMIT 200000) AS d', relation) INTO counted;
  RETURN counted;
END $$;
REVOKE ALL ON FUNCTION freshvec.count_rows(regclass) FROM PUBLIC;

-- Entries that wait, counted up to a bound, and the age of the oldest in seconds.
CREATE FUNCTION freshvec.backlog(sync text, OUT entries bigint, OUT oldest_seconds float8)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  queue text := format('freshvec.%I', 'queue_' || sync);
BEGIN
  IF to_regclass(queue) IS NULL THEN
    RETURN;
  END IF;
  EXECUTE format('SELECT count(*) FROM (SELECT FROM %s LIMIT 100000) AS e', queue) INTO entries;
  EXECUTE format('SELECT extract(epoch FROM clock_timestamp() - min(changed_at))::float8
                    FROM (VALUES (false), (true)) AS kind (bulk) CROSS JOIN LATERAL
                         (SELECT q.changed_at FROM %s AS q WHERE q.bulk = kind.bulk ORDER BY q.xid LIMIT 100) AS e',
                 queue) INTO oldest_seconds;
END $$;
REVOKE ALL ON FUNCTION freshvec.backlog(text) FROM PUBLIC;

-- The backend that owns a sync.
CREATE FUNCTION freshvec.owner_of(sync text) RETURNS int
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.pid FROM pg_locks l
   WHERE l.locktype = 'advisory' AND l.classid = 1719035235 AND l.objsubid = 2 AND l.granted
     AND l.objid::bigint = hashtext(sync)::bigint & 4294967295
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   LIMIT 1
$$;
REVOKE ALL ON FUNCTION freshvec.owner_of(text) FROM PUBLIC;

CREATE FUNCTION freshvec.sync_status() RETURNS TABLE (
  sync text, source text, target text, model text, rows_total bigint, rows_fresh bigint, rows_failed bigint,
  coverage float8, backlog bigint, oldest_unfresh_seconds float8,
  rescan_waiting boolean, backfill_done boolean,
  owner_pid int, device text, rows_per_second float8, eta_seconds float8,
  lag_p50_ms float8, lag_p99_ms float8,
  texts_truncated bigint, last_error text, proven_at timestamptz, proven_found bigint, proven_vectors bigint,
  refused bigint, trouble text, paused text
) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s freshvec.sync;
  a freshvec.activity;
  queued bigint;
  wanted bigint;
  fresh bigint;
BEGIN
  FOR s IN SELECT * FROM freshvec.sync ORDER BY name LOOP
    SELECT * INTO a FROM freshvec.activity act WHERE act.sync = s.name;
    sync := s.name;
    source := format('%I.%I', s.source_schema, s.source_table);
    target := format('%I.%I', s.target_schema, s.target_table);
    model := s.model;
    rows_total := CASE WHEN to_regclass(source) IS NOT NULL THEN freshvec.count_rows(to_regclass(source)) END;
    rows_fresh := s.rows_embedded;
    rows_failed := s.rows_failed;
    SELECT b.entries, b.oldest_seconds INTO queued, oldest_unfresh_seconds FROM freshvec.backlog(s.name) AS b;
    IF s.backfill_done OR s.walk_proves THEN  -- of the rows that have a text
      wanted := s.rows_embedded + s.rows_failed;
      fresh := s.rows_embedded;
    ELSE  -- of all rows, those the walk has passed
      wanted := greatest(rows_total, s.walk_rows);
      fresh := s.walk_rows;
    END IF;
    backlog := queued + greatest(0, wanted - fresh - s.rows_failed);
    coverage := CASE WHEN wanted > 0 THEN least(1, greatest(0, fresh - queued)::float8 / wanted)
                     WHEN queued > 0 OR NOT (s.backfill_done OR s.walk_proves) THEN 0 ELSE 1 END;
    IF to_regclass(source) IS NULL OR to_regclass(target) IS NULL
       OR to_regclass(source)::oid <> s.source_oid THEN
      coverage := 0;  -- the table that is kept is not the one that has this name
    END IF;
    rescan_waiting := EXISTS (SELECT FROM freshvec.rescan r WHERE r.sync = s.name);
    backfill_done := s.backfill_done OR s.walk_proves;
    owner_pid := freshvec.owner_of(s.name);
    paused := CASE WHEN owner_pid IS NOT NULL AND backlog > 0 THEN a.paused END;
    device := a.device;
    rows_per_second := CASE WHEN a.measured_at > now() - interval '30 seconds' THEN a.rows_per_second END;
    eta_seconds := CASE WHEN backlog = 0 THEN 0 WHEN rows_per_second > 0 THEN backlog / rows_per_second END;
    SELECT l.p50_ms, l.p99_ms INTO lag_p50_ms, lag_p99_ms
      FROM freshvec.lag AS l WHERE l.sync = s.name AND l.period = 'day';
    texts_truncated := a.texts_truncated;
    last_error := coalesce(s.trouble, a.last_error);
    proven_at := s.proven_at;
    proven_found := s.proven_found;
    proven_vectors := s.proven_vectors;
    refused := s.refused;
    trouble := s.trouble;
    RETURN NEXT;
  END LOOP;
END $$;

-- Counts only: a monitoring role may read the view and call this for it (docs/operations.md), and nothing
-- else.
REVOKE ALL ON FUNCTION freshvec.sync_status() FROM PUBLIC;

CREATE VIEW freshvec.status AS
  SELECT s.*, a.batch_tokens, a.device_memory_used_bytes, a.device_memory_total_bytes
    FROM freshvec.sync_status() AS s LEFT JOIN freshvec.activity AS a USING (sync);

-- Rows whose text could not be encoded, with the error: what `freshvec status` lists and `freshvec retry`
-- tries again.
CREATE FUNCTION freshvec.failures(most int DEFAULT 10)
RETURNS TABLE (sync text, key jsonb, error text, failed_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s freshvec.sync;
BEGIN
  FOR s IN SELECT * FROM freshvec.sync WHERE rows_failed > 0 ORDER BY name LOOP
    IF to_regclass(format('%I.%I', s.target_schema, s.target_table)) IS NOT NULL
       AND has_table_privilege(format('%I.%I', s.target_schema, s.target_table), 'SELECT') THEN
      RETURN QUERY EXECUTE format(
        'SELECT %L::text, to_jsonb(t) - %L::text[], t.encode_error, t.embedded_at FROM %I.%I AS t
          WHERE t.encode_error IS NOT NULL ORDER BY t.embedded_at DESC LIMIT %L',
        s.name, '{embedding,vector_hash,content_hash,fingerprint,fence,encode_error,embedded_at}',
        s.target_schema, s.target_table, most);
    END IF;
  END LOOP;
END $$;
REVOKE ALL ON FUNCTION freshvec.failures(int) FROM PUBLIC;
