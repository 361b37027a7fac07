-- Rows of a table, as before, also for a role whose name needs quotes: as "shop-owner" or an address of mail,
-- which a cast to regrole does not read.
CREATE OR REPLACE FUNCTION freshvec.count_rows(relation regclass) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  estimate bigint := freshvec.estimate_rows(relation);
  counted bigint;
BEGIN
  -- Nothing of the table's owner may run here with the rights of whom status belongs to: no policy, and no
  -- view that takes the table's place between this look and the count.
  IF coalesce(estimate, 0) > 50000 OR NOT has_table_privilege(relation, 'SELECT')
     OR NOT EXISTS (SELECT FROM pg_class WHERE oid = relation AND relkind IN ('r', 'p') AND NOT relrowsecurity
                       AND pg_has_role(relowner, 'USAGE')) THEN
    RETURN estimate;
  END IF;
  EXECUTE format('SELECT count(*) FROM (SELECT FROM %s LIMIT 200000) AS d', relation) INTO counted;
  RETURN counted;
END $$;
