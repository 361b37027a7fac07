-- all_exist: whether these tables, views and functions are there
SELECT bool_and(to_regclass(name) IS NOT NULL) AND (
         SELECT count(*) = cardinality(%(functions)s::text[])
           FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
          WHERE n.nspname = 'freshvec' AND p.proname = ANY (%(functions)s::text[]))
  FROM unnest(%(names)s::text[]) AS name
