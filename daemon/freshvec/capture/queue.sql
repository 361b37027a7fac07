-- create: the sync's queue, append-only, with the source's own key types
CREATE TABLE IF NOT EXISTS {queue} (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  bulk boolean NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  {k_typed_columns}
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_threshold = -1)

-- create_index: lets a small change be found behind a million bulk ones. IF NOT EXISTS would wait for all who
-- append before it looks.
DO $freshvec$ BEGIN
  IF to_regclass({index_name}) IS NULL THEN
    CREATE INDEX {index} ON {queue} (seq) WHERE NOT bulk;
  END IF;
END $freshvec$

-- read_live: rows changed by small statements, each with its entries: one reading of a row answers all of
-- them. The fence is drawn after the queue's snapshot, before any text is read.
WITH entries AS MATERIALIZED (
  SELECT seq, {k} FROM {queue}
   WHERE NOT bulk AND seq > %(floor)s AND seq <> ALL (%(in_flight)s) ORDER BY seq LIMIT %(entries)s
), found AS (
  SELECT array_agg(seq ORDER BY seq) AS seqs, {k} FROM entries GROUP BY {k} ORDER BY min(seq) LIMIT %(limit)s
)
SELECT (SELECT nextval('freshvec.fence')), (SELECT count(*) FROM entries), (SELECT max(seq) FROM entries),
       seqs, {k_texts}
  FROM found

-- read_bulk: rows changed by large statements
WITH entries AS MATERIALIZED (
  SELECT seq, {k} FROM {queue}
   WHERE bulk AND seq > %(floor)s AND seq <> ALL (%(in_flight)s) ORDER BY seq LIMIT %(entries)s
), found AS (
  SELECT array_agg(seq ORDER BY seq) AS seqs, {k} FROM entries GROUP BY {k} ORDER BY min(seq) LIMIT %(limit)s
)
SELECT (SELECT nextval('freshvec.fence')), (SELECT count(*) FROM entries), (SELECT max(seq) FROM entries),
       seqs, {k_texts}
  FROM found

-- horizon: the first transaction id not given yet, the oldest one still running, and the highest entry there
-- is. A snapshot's own xmax will not do: it follows the last transaction that has ended, and later ones may
-- be running. age() says how far the next id is from a given one; it looks after the snapshot was taken, so
-- it errs upwards.
SELECT pg_snapshot_xmax(s)::text::bigint + age(pg_snapshot_xmax(s)::xid), pg_snapshot_xmin(s)::text::bigint,
       (SELECT coalesce(max(seq), 0) FROM {queue})
  FROM pg_current_snapshot() AS s

-- delete: exactly the entries whose rows were written; gives each one's lag in seconds
DELETE FROM {queue} WHERE seq = ANY (%(seqs)s)
RETURNING extract(epoch FROM clock_timestamp() - changed_at)::float8

-- append: ask for rows to be read again; a transaction has its id before it draws a number (see QueueReader)
INSERT INTO {queue} (bulk, {k}) SELECT %(bulk)s, {k_typed} FROM {given_keys}
 WHERE pg_current_xact_id() IS NOT NULL

-- rescans: requests to compare the whole table, with their reasons
SELECT id, reason FROM freshvec.rescan WHERE sync = {sync_name}

-- is_empty: whether nothing waits
SELECT NOT EXISTS (SELECT FROM {queue} WHERE seq > %(floor)s)
   AND NOT EXISTS (SELECT FROM freshvec.rescan WHERE sync = {sync_name})

-- discard: a walk that begins now answers every entry that is visible now
DELETE FROM {queue}
