-- exists: whether the sync's queue has been made
SELECT to_regclass(%(queue)s) IS NOT NULL

-- latest: the latest transaction of which an entry is visible
SELECT coalesce(max(newest.xid::text::numeric), 0)::text FROM (VALUES (false), (true)) AS kind (bulk)
 CROSS JOIN LATERAL (SELECT q.xid FROM {queue} AS q WHERE q.bulk = kind.bulk ORDER BY q.xid DESC LIMIT 1)
                AS newest

-- is_fresh: whether all up to that transaction is answered
SELECT freshvec.is_fresh_up_to(%(latest)s::text::xid8, %(name)s, VARIADIC %(key)s::text[])
