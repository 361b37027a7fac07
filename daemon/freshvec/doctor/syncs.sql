-- reported: what the worker last said of a sync: error, device, and why bulk work waits
SELECT last_error, device, paused FROM freshvec.activity WHERE sync = %(name)s

-- hindrances: what hands have put on a queue, beside which no change can be noted
SELECT 'trigger ' || quote_ident(tgname) FROM pg_trigger WHERE tgrelid = to_regclass(%(queue)s)
UNION ALL
SELECT 'rule ' || quote_ident(rulename) FROM pg_rewrite WHERE ev_class = to_regclass(%(queue)s)
UNION ALL
SELECT 'constraint ' || quote_ident(conname) FROM pg_constraint
 WHERE conrelid = to_regclass(%(queue)s) AND contype = 'c'
UNION ALL
SELECT 'FORCE ROW LEVEL SECURITY' FROM pg_class WHERE oid = to_regclass(%(queue)s) AND relforcerowsecurity
