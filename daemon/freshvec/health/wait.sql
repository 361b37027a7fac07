-- exists: whether the sync's queue has been made
SELECT to_regclass(%(queue)s) IS NOT NULL

-- highest: the number of the last entry that is visible; an earlier change has none above it
SELECT coalesce(max(seq), 0) FROM {queue}

-- is_fresh: whether all up to that number is answered
SELECT freshvec.is_fresh_up_to(%(number)s, %(name)s, VARIADIC %(key)s::text[])
