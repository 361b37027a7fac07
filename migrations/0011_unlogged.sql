-- A crash of the server empties every unlogged table, and so does the promotion of a standby; no trigger
-- fires. Here stand the syncs whose tables were as they should be when a worker last began. This one is
-- emptied with them.
CREATE UNLOGGED TABLE freshvec.unlogged (
  sync text PRIMARY KEY REFERENCES freshvec.sync (name) ON DELETE CASCADE
);
