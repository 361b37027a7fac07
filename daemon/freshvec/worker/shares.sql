-- join: share those of the syncs that no worker keeps alone, as long as this connection lives
SELECT name FROM unnest(%(names)s::text[]) AS name
 WHERE pg_try_advisory_lock_shared(%(class)s, hashtext(name))

-- look: of each sync: its id, the sessions that share it, whether one of them leads, whether one that shared
-- it is gone, whether it is walked, and how many of those sessions were ended. A session whose client does
-- not read what it is sent is in a write that no timeout ends, so that a stopped worker which is rung would
-- keep its locks.
WITH held AS MATERIALIZED (
  SELECT l.classid::bigint AS class, l.objid::bigint AS object, l.pid, l.mode
    FROM pg_locks AS l
   WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
     AND l.classid IN (%(class)s::bigint::oid, %(lead_class)s::bigint::oid)
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
), sharing AS MATERIALIZED (
  SELECT object, array_agg(pid ORDER BY pid) AS pids FROM held
   WHERE class = %(class)s AND mode = 'ShareLock' GROUP BY object
), stuck AS MATERIALIZED (
  SELECT pg_terminate_backend(a.pid)
    FROM (SELECT DISTINCT unnest(pids) AS pid FROM sharing) AS m
   CROSS JOIN LATERAL pg_stat_get_activity(m.pid) AS a
   WHERE a.wait_event = 'ClientWrite' AND a.state = 'idle' AND a.state_change < now() - interval '3 seconds'
     AND a.usesysid = (SELECT oid FROM pg_roles WHERE rolname = current_user)
)
SELECT name, s.id, l.pids,
       EXISTS (SELECT FROM held AS h WHERE h.class = %(lead_class)s AND h.object = l.object),
       EXISTS (SELECT FROM freshvec.member AS m WHERE m.sync = s.name AND m.pid <> ALL (l.pids)),
       coalesce(NOT s.backfill_done, false), (SELECT count(*) FROM stuck)
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
