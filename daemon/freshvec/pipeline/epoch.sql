-- lock_alone: no writing transaction of another owner is under way any more, and none begins
SELECT pg_advisory_xact_lock(%(class)s, hashtext(%(name)s))

-- lock: among those who write
SELECT pg_advisory_xact_lock_shared(%(class)s, hashtext(%(name)s))

-- take: from now on only this owner's transactions write
UPDATE freshvec.sync SET epoch = epoch + 1 WHERE name = %(name)s AND generation = %(generation)s
RETURNING epoch

-- current: the generation and the epoch that may write
SELECT generation, epoch FROM freshvec.sync WHERE name = %(name)s
