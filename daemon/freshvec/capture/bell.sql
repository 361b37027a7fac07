-- listen: be told when a queue of this database gets an entry
LISTEN freshvec

-- stay: the listener must not be cut off for being quiet
SET idle_session_timeout = 0

-- hurry: a worker that shares must be known to be gone soon, also where its machine gives no sign of it
SELECT set_config('idle_session_timeout', '2500ms', false),
       set_config('idle_in_transaction_session_timeout', '2500ms', false)

-- beat: a sign of life
SELECT

-- is_taken: whether somebody wants to be rung
SELECT EXISTS (SELECT FROM pg_locks AS l
                WHERE l.locktype = 'advisory' AND l.classid = %(class)s::bigint::oid AND l.objsubid = 2
                  AND l.granted AND l.mode = 'ExclusiveLock'
                  AND l.objid::bigint = hashtext(%(name)s)::bigint & 4294967295
                  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))

-- tell: those who share a sync
SELECT pg_notify('freshvec', %(note)s)

-- may_ring: a transaction that has notified cannot be prepared, so where one may be, nobody may ring
SELECT current_setting('max_prepared_transactions') = '0'

-- take: from now on writers ring, unless one is under way who will not
SELECT CASE WHEN pg_notification_queue_usage() < 0.25
            THEN pg_try_advisory_lock(%(class)s, hashtext(%(name)s)) ELSE false END

-- release: writers ring no more
SELECT pg_advisory_unlock(%(class)s, hashtext(%(name)s))

-- is_queue_filling: past half of it nobody rings (freshvec.ring)
SELECT pg_notification_queue_usage() >= 0.25

-- do_writers_wait: whether a commit waits for another one's notification: for the lock on no database at all
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_database'::regclass
                  AND objid = 0 AND NOT granted)
