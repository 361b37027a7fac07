-- begin: note that a worker begins; have the table walked where a crash may have emptied some of its tables
-- since another one did
WITH noted AS (
  INSERT INTO freshvec.unlogged (sync) SELECT name FROM freshvec.sync WHERE name = %(name)s
      ON CONFLICT DO NOTHING
  RETURNING sync
)
SELECT freshvec.ask_for_walk(sync, 'a crash may have emptied unlogged tables') FROM noted
 WHERE EXISTS (SELECT FROM pg_class
                WHERE relpersistence = 'u'
                  AND (oid = ANY (%(relations)s::oid[])
                       OR oid IN (SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) AS name)))
