-- Workers that share the rows of a sync, with `daemon.share`. One that keeps a sync alone has no row here.

-- Whether those who share it keep the sync now, or one worker alone; each turn has an epoch of its own.
ALTER TABLE freshvec.sync
  ADD COLUMN is_shared boolean NOT NULL DEFAULT false,
  ADD COLUMN walk_is_cut boolean NOT NULL DEFAULT false;  -- all its rows are handed out

CREATE TABLE freshvec.member (
  sync text NOT NULL REFERENCES freshvec.sync (name) ON DELETE CASCADE,
  pid int NOT NULL,                          -- of the session that holds its locks
  worker text NOT NULL,                      -- its host and process
  epoch bigint NOT NULL,                     -- a number of the fence's sequence: none comes twice
  shards bigint NOT NULL,                    -- a bit for each that it owns
  leads boolean NOT NULL,
  rows_per_second float8 NOT NULL DEFAULT 0,
  -- What it has counted and not yet added to freshvec.sync, whose row all of them would wait for.
  rows_embedded bigint NOT NULL DEFAULT 0,
  rows_failed bigint NOT NULL DEFAULT 0,
  refused bigint NOT NULL DEFAULT 0,
  walk_rows bigint NOT NULL DEFAULT 0,
  walk_found bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (sync, pid)
) WITH (fillfactor = 50);

-- Ranges of a walk that were handed out and are not yet passed. freshvec.sync.backfill_after is where the
-- next one begins.
CREATE TABLE freshvec.range (
  sync text NOT NULL REFERENCES freshvec.sync (name) ON DELETE CASCADE,
  number bigint NOT NULL,
  member int,                                -- who walks it; NULL: whoever wants to
  after text[],                              -- its rows come after this key, NULL: from the first on
  upto text[],                               -- and go up to this one, NULL: to the last
  PRIMARY KEY (sync, number)
) WITH (fillfactor = 50);

-- Who shares a sync, for people and for `freshvec status`.
CREATE VIEW freshvec.workers AS
  SELECT sync, worker, pid, leads, bit_count(shards::bit(64))::int AS shards, rows_per_second
    FROM freshvec.member;
