-- join: share those of the syncs that no worker keeps alone, as long as this connection lives
SELECT name FROM unnest(%(names)s::text[]) AS name
 WHERE pg_try_advisory_lock_shared(%(class)s, hashtext(name))

-- look: of each sync: its id, the sessions that share it, whether one that did is gone, and whether it is
-- walked
WITH sharing AS MATERIALIZED (
  SELECT l.objid::bigint AS object, array_agg(l.pid ORDER BY l.pid) AS pids
    FROM pg_locks AS l
   WHERE l.locktype = 'advisory' AND l.classid = %(class)s::bigint::oid AND l.objsubid = 2
     AND l.granted AND l.mode = 'ShareLock'
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   GROUP BY l.objid
)
SELECT name, s.id, l.pids,
       EXISTS (SELECT FROM freshvec.member AS m WHERE m.sync = s.name AND m.pid <> ALL (l.pids)),
       coalesce(NOT s.backfill_done, false)
  FROM unnest(%(names)s::text[]) AS name
  JOIN sharing AS l ON l.object = hashtext(name)::bigint & 4294967295
  LEFT JOIN freshvec.sync AS s USING (name)

-- lead: do what only one may do, if nobody does
SELECT pg_try_advisory_lock(%(class)s, hashtext(%(name)s))

-- gain: own so many more of these shards, where nobody does
SELECT shard FROM unnest(%(shards)s::int[]) AS shard
 WHERE pg_try_advisory_lock(%(class)s, %(id)s * 64 + shard) LIMIT %(most)s

-- give_up: own them no more
SELECT pg_advisory_unlock(%(class)s, %(id)s * 64 + shard) FROM unnest(%(shards)s::int[]) AS shard

-- leave: share it no more
SELECT pg_advisory_unlock_shared(%(class)s, hashtext(%(name)s))

-- follow: lead no more
SELECT pg_advisory_unlock(%(class)s, hashtext(%(name)s))
