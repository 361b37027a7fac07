-- begin: the edition that there is, where it is the first, and the one that is to be filled. Whoever begins
-- at the same time waits for the view's row, and then finds that another has begun
INSERT INTO freshvec.edition (name, sync, number, declared, target, file, view, is_shown, shown_at)
VALUES (%(name)s, %(sync)s, %(number)s, %(declared)s, %(target)s, %(file)s, %(view)s, %(is_shown)s,
        CASE WHEN %(is_shown)s THEN now() END)
    ON CONFLICT DO NOTHING

-- lock: no writing transaction of these editions is under way any more, and none begins
SELECT pg_advisory_xact_lock(%(class)s, hashtext(name)) FROM unnest(%(names)s::text[]) AS name

-- show: from now on the view shows this one, which stays; the other may leave after a while
UPDATE freshvec.edition
   SET is_shown = (name = %(name)s), is_leaving = is_leaving AND name <> %(name)s,
       shown_at = CASE WHEN name = %(name)s THEN now() ELSE shown_at END,
       kept_until = CASE WHEN name <> %(name)s
                         THEN now() + make_interval(secs => %(keep_seconds)s::float8) END
 WHERE name IN (%(name)s, %(other)s)

-- hide: what the view shows no more, so that one edition at most is ever shown
UPDATE freshvec.edition SET is_shown = false WHERE name = %(other)s

-- shape: what an edition has for objects once the view shows it, or shows it no more
UPDATE freshvec.sync
   SET shape = %(shape)s,
       identity = CASE WHEN identity = '' THEN '' ELSE
         (identity::jsonb || jsonb_build_object('view', to_regclass(%(view)s::text)::oid::bigint))::text END
 WHERE name = %(name)s

-- leave: it is kept no more
UPDATE freshvec.edition SET is_leaving = true WHERE name = %(name)s AND NOT is_shown

-- is_kept: whether an edition is shown, or nobody let it go
SELECT is_shown OR NOT is_leaving AND NOT coalesce(kept_until < now(), false)
  FROM freshvec.edition WHERE name = %(name)s

-- readers: who may read the view, and whether they may give that on
SELECT CASE WHEN acl.grantee = 0 THEN NULL ELSE pg_get_userbyid(acl.grantee)::text END, acl.privilege_type,
       acl.is_grantable
  FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS acl
 WHERE c.oid = to_regclass(%(view)s::text) AND acl.grantee <> c.relowner

-- grant: the same again, on a view that was made anew
GRANT {privilege} ON {view} TO {role}

-- upon: a view of the user's that the sync's view must not be taken away from
SELECT DISTINCT r.ev_class::regclass::text FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
 WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = to_regclass(%(view)s::text)
   AND r.ev_class <> d.refobjid LIMIT 1

-- type: of the vectors that the view shows
SELECT format_type(atttypid, NULL) FROM pg_attribute
 WHERE attrelid = to_regclass(%(view)s::text) AND attname = 'embedding' AND NOT attisdropped

-- tell: let the workers look at once
SELECT pg_notify('freshvec', '')
