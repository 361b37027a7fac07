-- The indexes on vectors: which there are, how large, and how far one is that is being built.

-- Why the declared index is not there, where something keeps it from being built.
ALTER TABLE freshvec.sync ADD COLUMN index_trouble text;

-- The indexes on a sync's target but those of its key. `is_ours`: freshvec made it, and may drop it. `phase`,
-- `share` and `waits_for` are of one that is being built, as far as this function's owner may see the session.
CREATE FUNCTION freshvec.sync_indexes() RETURNS TABLE (
  sync text, name text, definition text, bytes bigint, is_valid boolean, is_ours boolean,
  phase text, share float8, waits_for int
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.name, c.relname::text, pg_get_indexdef(c.oid), pg_relation_size(c.oid), i.indisvalid,
         c.relname ~ ('^freshvec_' || s.name || '_[0-9a-f]{8}$'), p.phase,
         CASE WHEN p.tuples_total > 0 THEN p.tuples_done::float8 / p.tuples_total
              WHEN p.blocks_total > 0 THEN p.blocks_done::float8 / p.blocks_total END,
         nullif(p.current_locker_pid, 0)::int
    FROM freshvec.sync AS s
    JOIN pg_index AS i ON i.indrelid = to_regclass(format('%I.%I', s.vectors_schema, s.vectors_table))
    JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam
    LEFT JOIN pg_stat_progress_create_index AS p ON p.index_relid = c.oid AND NOT i.indisvalid
   WHERE a.amname <> 'btree'
     AND EXISTS (SELECT FROM pg_depend AS d JOIN pg_attribute AS v ON v.attrelid = d.refobjid
                                                                AND v.attnum = d.refobjsubid
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjid = i.indrelid
                    AND v.attname = s.vectors_column)
   ORDER BY s.name, c.relname
$$;

CREATE VIEW freshvec.indexes AS SELECT * FROM freshvec.sync_indexes();

-- Of each sync the index that matters most: one that is being built, else one that serves, ours before others;
-- and why the declared one is not there.
CREATE FUNCTION freshvec.sync_index() RETURNS TABLE (
  sync text, name text, bytes bigint, is_valid boolean, phase text, share float8, trouble text
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.name, i.name, i.bytes, i.is_valid, i.phase, i.share, s.index_trouble
    FROM freshvec.sync AS s LEFT JOIN (
      SELECT DISTINCT ON (sync) * FROM freshvec.sync_indexes()
       ORDER BY sync, phase IS NULL, NOT is_valid, NOT is_ours) AS i ON i.sync = s.name
$$;

CREATE OR REPLACE VIEW freshvec.status AS
  SELECT s.*, a.batch_tokens, a.device_memory_used_bytes, a.device_memory_total_bytes,
         i.name AS index_name, i.bytes AS index_bytes, i.is_valid AS index_valid,
         i.phase AS index_phase, i.share AS index_share, i.trouble AS index_trouble
    FROM freshvec.sync_status() AS s LEFT JOIN freshvec.activity AS a USING (sync)
    LEFT JOIN freshvec.sync_index() AS i USING (sync);

CREATE OR REPLACE VIEW freshvec.progress AS
  SELECT p.*, i.name AS index_name, i.phase AS index_phase, i.share AS index_share
    FROM freshvec.sync_progress() AS p
    LEFT JOIN freshvec.sync_index() AS i ON i.sync = p.sync AND i.phase IS NOT NULL;
