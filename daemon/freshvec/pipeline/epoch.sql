-- lock_alone: no writing transaction of another owner is under way any more, and none begins
SELECT pg_advisory_xact_lock(%(class)s, hashtext(%(name)s))

-- lock: among those who write
SELECT pg_advisory_xact_lock_shared(%(class)s, hashtext(%(name)s))

-- retire: members that are gone: their session has ended, or this one has got a shard of theirs, or the lead.
-- For a worker alone, all of them. What they counted is kept.
WITH gone AS (
  DELETE FROM freshvec.member AS m
   WHERE m.sync = %(name)s AND m.pid IS DISTINCT FROM %(pid)s::int
     AND (%(pid)s::int IS NULL OR m.shards & %(shards)s::bigint <> 0 OR (m.leads AND %(leads)s)
          OR m.pid NOT IN (SELECT l.pid FROM pg_locks AS l
                            WHERE l.locktype = 'advisory' AND l.classid = %(class)s::bigint::oid
                              AND l.objsubid = 2 AND l.granted AND l.mode = 'ShareLock'
                              AND l.objid::bigint = hashtext(%(name)s)::bigint & 4294967295
                              AND l.database = (SELECT oid FROM pg_database
                                                 WHERE datname = current_database())))
  RETURNING *
), counted AS (
  SELECT sum(rows_embedded) AS embedded, sum(rows_failed) AS failed, sum(refused) AS refused,
         sum(walk_rows) AS walked, sum(walk_found) AS found
    FROM gone HAVING count(*) > 0
)
UPDATE freshvec.sync AS s
   SET rows_embedded = greatest(0, s.rows_embedded + c.embedded),
       rows_failed = greatest(0, s.rows_failed + c.failed), refused = s.refused + c.refused,
       walk_rows = s.walk_rows + c.walked, walk_found = s.walk_found + c.found
  FROM counted AS c WHERE s.name = %(name)s

-- free_ranges: those whose member is gone, or begins anew
UPDATE freshvec.range AS r SET member = NULL
 WHERE r.sync = %(name)s AND r.member IS NOT NULL
   AND (r.member = %(pid)s::int
        OR r.member NOT IN (SELECT m.pid FROM freshvec.member AS m WHERE m.sync = %(name)s))

-- take: from now on only this owner's transactions write
UPDATE freshvec.sync SET epoch = epoch + 1, is_shared = false
 WHERE name = %(name)s AND generation = %(generation)s
RETURNING epoch

-- take_shared: from now on a worker that kept it alone writes no more, and of this member's transactions only
-- those of this epoch. Its ranges stay its own.
WITH shared AS (
  UPDATE freshvec.sync SET epoch = epoch + CASE WHEN is_shared THEN 0 ELSE 1 END, is_shared = true
   WHERE name = %(name)s AND generation = %(generation)s
  RETURNING name
)
INSERT INTO freshvec.member AS m (sync, pid, worker, epoch, shards, leads)
SELECT name, %(pid)s, %(worker)s, nextval('freshvec.fence'), %(shards)s, %(leads)s FROM shared
    ON CONFLICT (sync, pid) DO UPDATE
   SET worker = excluded.worker, epoch = excluded.epoch, shards = excluded.shards, leads = excluded.leads
RETURNING m.epoch

-- resize: other shards, in another epoch
UPDATE freshvec.member SET epoch = nextval('freshvec.fence'), shards = %(shards)s, leads = %(leads)s
 WHERE sync = %(name)s AND pid = %(pid)s

-- leave: as one that is gone
WITH gone AS (
  DELETE FROM freshvec.member WHERE sync = %(name)s AND pid = %(pid)s RETURNING *
)
UPDATE freshvec.sync AS s
   SET rows_embedded = greatest(0, s.rows_embedded + g.rows_embedded),
       rows_failed = greatest(0, s.rows_failed + g.rows_failed), refused = s.refused + g.refused,
       walk_rows = s.walk_rows + g.walk_rows, walk_found = s.walk_found + g.walk_found
  FROM gone AS g WHERE s.name = g.sync

-- fold: what a member has counted becomes part of what the sync shows
WITH counted AS (
  SELECT * FROM freshvec.member WHERE sync = %(name)s AND pid = %(pid)s FOR UPDATE
), emptied AS (
  UPDATE freshvec.member AS m
     SET rows_embedded = 0, rows_failed = 0, refused = 0, walk_rows = 0, walk_found = 0,
         rows_per_second = %(rows_per_second)s
    FROM counted AS c
   WHERE (m.sync, m.pid) = (c.sync, c.pid)
     AND (c.rows_embedded, c.rows_failed, c.refused, c.walk_rows, c.walk_found, c.rows_per_second)
         IS DISTINCT FROM (0, 0, 0, 0, 0, %(rows_per_second)s)
)
UPDATE freshvec.sync AS s
   SET rows_embedded = greatest(0, s.rows_embedded + c.rows_embedded),
       rows_failed = greatest(0, s.rows_failed + c.rows_failed), refused = s.refused + c.refused,
       walk_rows = s.walk_rows + c.walk_rows, walk_found = s.walk_found + c.walk_found
  FROM counted AS c
 WHERE s.name = c.sync
   AND (c.rows_embedded, c.rows_failed, c.refused, c.walk_rows, c.walk_found) IS DISTINCT FROM (0, 0, 0, 0, 0)

-- current: the generation and the epoch that may write; the fence of the last walk, and whether that goes on
SELECT generation, epoch, walk_fence, NOT backfill_done
  FROM freshvec.sync WHERE name = %(name)s

-- current_shared: the same of a member
SELECT s.generation, m.epoch, s.walk_fence, NOT s.backfill_done
  FROM freshvec.sync AS s JOIN freshvec.member AS m ON m.sync = s.name AND m.pid = %(pid)s
 WHERE s.name = %(name)s
