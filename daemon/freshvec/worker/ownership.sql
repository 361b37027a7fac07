-- own: those of the syncs that nobody owns: from now on we do, as long as this connection lives
SELECT name FROM unnest(%(names)s::text[]) AS name WHERE pg_try_advisory_lock(%(class)s, hashtext(name))

-- disown: let another worker have it
SELECT pg_advisory_unlock(%(class)s, hashtext(%(name)s))

-- owner: who owns a sync: its backend and what it calls itself
SELECT l.pid, a.application_name FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'advisory' AND l.classid = %(class)s::bigint::oid AND l.objsubid = 2 AND l.granted
   AND l.objid::bigint = hashtext(%(name)s)::bigint & 4294967295
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- trouble: why a sync is not kept as declared
UPDATE freshvec.sync SET trouble = %(trouble)s WHERE name = %(name)s AND trouble IS DISTINCT FROM %(trouble)s

-- has_owners_rights: whether this role may do with a table what its owner may
SELECT coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = %(oid)s::oid), false)
