-- retry: let rows whose text could not be encoded be tried again; a transaction has its id before it draws a
-- number
WITH failed AS (SELECT {t_keys} FROM {target} AS t WHERE encode_error IS NOT NULL AND {is_trusted})
INSERT INTO {queue} (bulk, {k}) SELECT true, {t_keys} FROM failed AS t WHERE pg_current_xact_id() IS NOT NULL

-- ring: wake the worker
SELECT freshvec.ring({sync_name})
