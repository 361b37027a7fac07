-- create: the sync's queue, append-only, with the source's own key types
CREATE TABLE IF NOT EXISTS {queue} (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  bulk boolean NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  {k_typed_columns}
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_threshold = -1)

-- create_index: lets a small change be found behind a million bulk ones
CREATE INDEX IF NOT EXISTS {index} ON {queue} (seq) WHERE NOT bulk

-- read_live: keys changed by small statements; the fence is drawn after the queue's snapshot, before any text is read
SELECT seq, (SELECT nextval('freshvec.fence')) AS fence, {k_texts} FROM {queue}
 WHERE NOT bulk AND seq > %(floor)s AND seq <> ALL (%(in_flight)s) ORDER BY seq LIMIT %(limit)s

-- read_bulk: keys changed by large statements
SELECT seq, (SELECT nextval('freshvec.fence')) AS fence, {k_texts} FROM {queue}
 WHERE bulk AND seq > %(floor)s AND seq <> ALL (%(in_flight)s) ORDER BY seq LIMIT %(limit)s

-- delete: exactly the entries whose rows were written; gives each one's lag in seconds
DELETE FROM {queue} WHERE seq = ANY (%(seqs)s)
RETURNING extract(epoch FROM clock_timestamp() - changed_at)::float8

-- append: ask for rows to be read again
INSERT INTO {queue} (bulk, {k}) SELECT true, {k_typed} FROM {given_keys}

-- rescans: requests to compare the whole table
SELECT id FROM freshvec.rescan WHERE sync = {sync_name}

-- is_empty: whether nothing waits
SELECT NOT EXISTS (SELECT FROM {queue}) AND NOT EXISTS (SELECT FROM freshvec.rescan WHERE sync = {sync_name})
