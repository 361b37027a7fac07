-- is_made: whether the database keeps any sync.
SELECT to_regclass('freshvec.sync') IS NOT NULL;

-- fingerprints: of the vectors that syncs with this model have; those of most syncs first.
SELECT fingerprint FROM freshvec.sync WHERE model = %(model)s
 GROUP BY fingerprint ORDER BY count(*) DESC, fingerprint;
