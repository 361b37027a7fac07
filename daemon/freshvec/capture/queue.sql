-- create: the sync's queue, append-only, with the source's own key types. No sequence numbers it: lastval()
-- in the application's session would be ours.
CREATE TABLE IF NOT EXISTS {queue} (
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  bulk boolean NOT NULL,
  {k_typed_columns}
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_threshold = -1)

-- create_index: lets a small change be found behind a million bulk ones. IF NOT EXISTS would wait for all who
-- append before it looks.
DO $freshvec$ BEGIN
  IF to_regclass({index_name}) IS NULL THEN
    CREATE INDEX {index} ON {queue} (bulk, xid, changed_at);
  END IF;
END $freshvec$

-- identify: a publication FOR ALL TABLES takes the queue along, and Postgres refuses to delete from a table
-- that is published and has no key. A queue that has this already is not locked.
DO $freshvec$ BEGIN
  IF (SELECT relreplident <> 'f' FROM pg_class WHERE oid = {queue_name}::regclass) THEN
    ALTER TABLE {queue} REPLICA IDENTITY FULL;
  END IF;
END $freshvec$

-- read: changed rows, each with its entries: one reading of a row answers all of them. It begins at the
-- oldest entry that an earlier snapshot did not see: of a transaction that ran then, or of a later one. The
-- fence is drawn after the queue's snapshot, before any text is read.
WITH file (number) AS MATERIALIZED (
  SELECT pg_relation_filenode({queue_name})::text
), handed_out (xid, place) AS MATERIALIZED (
  SELECT split_part(entry, ' ', 2)::xid8, split_part(entry, ' ', 3)::tid
    FROM string_to_table(%(handed_out)s, ';') AS entry
   WHERE split_part(entry, ' ', 1) = (SELECT number FROM file)
), late AS MATERIALIZED (
  SELECT ran.xid FROM unnest(%(running)s::text[]::xid8[]) AS ran (xid)
   WHERE EXISTS (SELECT FROM {queue} AS q
                  WHERE q.bulk = %(bulk)s AND q.xid = ran.xid {and_is_own}
                    AND (q.xid, q.ctid) NOT IN (SELECT xid, place FROM handed_out))
   ORDER BY ran.xid LIMIT 1
), entries AS MATERIALIZED (
  SELECT q.xid, q.changed_at, q.ctid AS place, {k} FROM {queue} AS q
   WHERE q.bulk = %(bulk)s
     AND (q.xid, q.changed_at) >= (coalesce((SELECT xid FROM late), %(xid)s::text::xid8),
                                 %(changed_at)s::text::timestamptz)
     AND (q.xid, q.ctid) NOT IN (SELECT xid, place FROM handed_out) {and_is_own}
   ORDER BY q.xid, q.changed_at LIMIT %(entries)s
), last AS (
  SELECT xid, changed_at FROM entries ORDER BY xid DESC, changed_at DESC LIMIT 1
), found AS (
  SELECT string_agg(concat_ws(' ', (SELECT number FROM file), xid, place), ';') AS entries, {k} FROM entries
   GROUP BY {k} ORDER BY min(changed_at) LIMIT %(limit)s
)
SELECT (SELECT pg_current_snapshot()::text), (SELECT nextval('freshvec.fence') FROM found LIMIT 1),
       (SELECT count(*) FROM entries), (SELECT xid::text FROM last), (SELECT changed_at::text FROM last),
       found.entries, {k_texts}
  FROM (VALUES (0)) AS one LEFT JOIN found ON true

-- and_is_own: keys of the shards that are read; equal keys are in one, however they are spelt
 AND %(shards)s::bigint >> (hash_record_extended(ROW ({q_keys}), 0) & 63)::int & 1 = 1

-- has_hashes: whether the key's types have any
SELECT hash_record_extended(ROW ({nulls}), 0)

-- delete: exactly the entries whose rows were written; gives each one's lag in seconds
DELETE FROM {queue} AS q USING string_to_table(%(entries)s, ';') AS entry
 WHERE q.ctid = split_part(entry, ' ', 3)::tid AND q.xid = split_part(entry, ' ', 2)::xid8
   AND split_part(entry, ' ', 1) = (SELECT pg_relation_filenode({queue_name})::text)
RETURNING extract(epoch FROM clock_timestamp() - q.changed_at)::float8

-- append: ask for rows to be read again; gives the entries
INSERT INTO {queue} (bulk, {k}) SELECT %(bulk)s, {k_typed} FROM {given_keys} ORDER BY k.place
RETURNING concat_ws(' ', pg_relation_filenode({queue_name}), xid, ctid)

-- rescans: requests to compare the whole table, with their reasons
SELECT id::text, reason FROM freshvec.rescan WHERE sync = {sync_name}

-- is_empty: whether nothing waits, and the snapshot that saw it
SELECT NOT EXISTS (SELECT FROM (VALUES (false), (true)) AS kind (bulk)
                    WHERE EXISTS (SELECT FROM {queue} AS q
                                   WHERE q.bulk = kind.bulk AND q.xid >= %(xid)s::text::xid8 {and_is_own})
                       OR EXISTS (SELECT FROM {queue} AS q
                                   WHERE q.bulk = kind.bulk
                                     AND q.xid = ANY (%(running)s::text[]::xid8[]) {and_is_own}))
   AND NOT EXISTS (SELECT FROM freshvec.rescan WHERE sync = {sync_name}),
       pg_current_snapshot()::text

-- discard: a walk that begins now answers every entry that is visible now
DELETE FROM {queue}

-- discard_file: and the file that they filled
TRUNCATE ONLY {queue}

-- note_file: the new one is the sync's, and nobody else's doing
UPDATE freshvec.sync
   SET identity = jsonb_set(identity::jsonb, ARRAY['queue_file'],
                            to_jsonb(pg_relation_filenode({queue_name})::bigint))::text
 WHERE name = {sync_name} AND identity <> ''
