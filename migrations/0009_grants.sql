-- What has the rights of who calls it, or shows what everybody may see, is everybody's to call. Postgres
-- has it so unless ALTER DEFAULT PRIVILEGES took that from functions of whoever applies.
GRANT EXECUTE ON FUNCTION freshvec.is_fresh, freshvec.is_fresh_up_to, freshvec.shown, freshvec.add_counts,
  freshvec.lag_quantile, freshvec.sync_indexes, freshvec.sync_index TO PUBLIC;
