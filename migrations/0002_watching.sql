-- What can be asked of a sync beside its status: how far it is, how long changes wait, and whether a row is
-- fresh.

-- How long changes waited for their vectors: by the hour, how many of them in each bucket. Bucket i holds
-- those of at most 2 ^ (i - 1) ms and more than the one before; the 22nd holds all above 17.5 minutes. What
-- is older than a week is added to the row of hour -infinity, so the sums over all rows only ever grow.
CREATE TABLE freshvec.lag_hour (
  sync text NOT NULL REFERENCES freshvec.sync (name) ON DELETE CASCADE,
  hour timestamptz NOT NULL,
  counts bigint[] NOT NULL,
  total_ms float8 NOT NULL,
  longest_ms float8 NOT NULL,
  PRIMARY KEY (sync, hour)
);

CREATE FUNCTION freshvec.add_counts(one bigint[], other bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT array_agg(coalesce(a, 0) + coalesce(b, 0) ORDER BY place)
    FROM unnest(one, other) WITH ORDINALITY AS pair (a, b, place)
$$;

CREATE AGGREGATE freshvec.sum_counts(bigint[]) (SFUNC = freshvec.add_counts, STYPE = bigint[]);

-- The lag in ms that such a share of the changes did not exceed. Within a bucket they are taken to lie
-- evenly.
CREATE FUNCTION freshvec.lag_quantile(counts bigint[], share float8) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN place = 22 THEN lowest
              ELSE lowest + (2 ^ (place - 1) - lowest) * (share * total - (so_far - count)) / count END
    FROM (SELECT place, count, CASE WHEN place = 1 THEN 0 ELSE 2 ^ (place - 2) END AS lowest,
                 sum(count) OVER (ORDER BY place)::float8 AS so_far, sum(count) OVER ()::float8 AS total
            FROM unnest(counts) WITH ORDINALITY AS bucket (count, place)) AS bucket
   WHERE count > 0 AND so_far >= share * total
   ORDER BY place LIMIT 1
$$;

-- Of the small changes of the last hour, day and week: how many there were and how long they waited. The
-- clock hour in which a period begins counts as a whole.
CREATE VIEW freshvec.lag AS
SELECT sync, period, (SELECT coalesce(sum(count), 0) FROM unnest(counts) AS count)::bigint AS changes,
       freshvec.lag_quantile(counts, 0.5) AS p50_ms, freshvec.lag_quantile(counts, 0.9) AS p90_ms,
       freshvec.lag_quantile(counts, 0.99) AS p99_ms, longest_ms
  FROM (SELECT s.name AS sync, p.period, p.length, freshvec.sum_counts(l.counts) AS counts,
               max(l.longest_ms) AS longest_ms
          FROM freshvec.sync AS s
         CROSS JOIN (VALUES ('hour', interval '1 hour'), ('day', interval '1 day'),
                            ('week', interval '7 days')) AS p (period, length)
          LEFT JOIN freshvec.lag_hour AS l
                 ON l.sync = s.name AND l.hour >= date_trunc('hour', now() - p.length)
         GROUP BY s.name, p.period, p.length) AS l
 ORDER BY sync, length;

-- How far each sync is that a worker owns. `queued` is counted up to a bound, tables are not counted.
CREATE FUNCTION freshvec.sync_progress() RETURNS TABLE (
  sync text, phase text, paused text, rows_done bigint, rows_total bigint, rows_per_second float8,
  eta_seconds float8, started_at timestamptz, queued bigint, owner_pid int
) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s freshvec.sync;
  a freshvec.activity;
  source regclass;
BEGIN
  FOR s IN SELECT * FROM freshvec.sync ORDER BY name LOOP
    sync := s.name;
    owner_pid := freshvec.owner_of(s.name);
    CONTINUE WHEN owner_pid IS NULL;
    SELECT * INTO a FROM freshvec.activity AS act WHERE act.sync = s.name;
    queued := coalesce((SELECT b.entries FROM freshvec.backlog(s.name) AS b), 0);
    phase := coalesce(a.phase, 'applying');
    paused := CASE WHEN queued > 0 OR phase <> 'live' THEN a.paused END;
    IF s.backfill_done THEN
      rows_done := NULL;
      rows_total := NULL;
      started_at := a.phase_since;
    ELSE
      source := to_regclass(format('%I.%I', s.source_schema, s.source_table));
      rows_done := s.walk_rows;
      rows_total := greatest(s.walk_rows, freshvec.estimate_rows(source));
      started_at := s.walk_started_at;
    END IF;
    rows_per_second := CASE WHEN a.measured_at > now() - interval '30 seconds' THEN a.rows_per_second END;
    eta_seconds := CASE WHEN paused IS NOT NULL THEN NULL
                        WHEN queued + coalesce(rows_total - rows_done, 0) = 0 THEN 0
                        WHEN rows_per_second > 0
                        THEN (queued + coalesce(rows_total - rows_done, 0)) / rows_per_second END;
    RETURN NEXT;
  END LOOP;
END $$;
REVOKE ALL ON FUNCTION freshvec.sync_progress() FROM PUBLIC;

CREATE VIEW freshvec.progress AS SELECT * FROM freshvec.sync_progress();

-- Whether whatever was noted of a row, in entries of the queue up to a transaction, is answered. A row that the
-- caller does not see in the source has nothing that could be stale. What is the caller's runs with the
-- caller's rights: key texts are made values, and the source is looked at. Without a key the whole sync is
-- meant.
CREATE FUNCTION freshvec.is_fresh_up_to(latest xid8, sync text, VARIADIC key text[] DEFAULT '{}')
RETURNS boolean LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  edition text := freshvec.shown(sync);
  answered regproc := to_regproc(format('freshvec.%I', 'answered_' || edition));
  columns int := (SELECT pronargs - 1 FROM pg_proc WHERE oid = answered);
  given text;
  fresh boolean;
BEGIN
  IF answered IS NULL THEN
    RAISE undefined_object USING MESSAGE = format('freshvec has applied no sync %L here', sync),
      HINT = 'SELECT name FROM freshvec.sync shows those there are.';
  ELSIF key = '{}' THEN
    EXECUTE format('SELECT %s(%s $1)', answered, repeat('NULL, ', columns)) INTO fresh USING latest;
    RETURN fresh;
  ELSIF cardinality(key) <> columns OR array_position(key, NULL) IS NOT NULL THEN
    RAISE invalid_parameter_value USING MESSAGE = format('a key of sync %L has %s columns', sync, columns),
      HINT = 'Give each as text, in the order of the primary key.';
  END IF;
  SELECT string_agg(format('%L', part), ', ' ORDER BY place) INTO given
    FROM unnest(key) WITH ORDINALITY AS k (part, place);
  EXECUTE format('SELECT NOT freshvec.%I(%s) OR %s(%2$s, $1)', 'visible_' || edition, given, answered)
     INTO fresh USING latest;
  RETURN fresh;
END $$;

-- Whether a row's vector is that of its text, as the caller's snapshot shows them; docs/operations.md.
CREATE FUNCTION freshvec.is_fresh(sync text, VARIADIC key text[] DEFAULT '{}') RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT freshvec.is_fresh_up_to('18446744073709551615', sync, VARIADIC key) $$;
