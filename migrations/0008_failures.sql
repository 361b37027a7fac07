-- Rows whose text could not be encoded, as before, but only from a table whose owner has the rights of
-- who asks or of whoever made the sync's queue: what has the target's name by now may be a view of
-- somebody else's, whose functions would run with the rights of who asks. It is asked before the query
-- is planned, and again by it, of the very table that it reads.
CREATE OR REPLACE FUNCTION freshvec.failures(most int DEFAULT 10)
RETURNS TABLE (sync text, key jsonb, error text, failed_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s freshvec.sync;
  target text;
  trusted text;
  is_trusted boolean;
BEGIN
  FOR s IN SELECT * FROM freshvec.sync WHERE rows_failed > 0 ORDER BY name LOOP
    target := format('%I.%I', s.target_schema, s.target_table);
    IF to_regclass(target) IS NOT NULL AND has_table_privilege(target, 'SELECT') THEN
      trusted := format(
        'SELECT c.relkind = ''r'' AND (pg_has_role(c.relowner, current_user, ''MEMBER'')
                OR coalesce(pg_has_role(c.relowner, q.relowner, ''MEMBER''), false))
           FROM pg_class AS c LEFT JOIN pg_class AS q ON q.oid = to_regclass(%L)
          WHERE c.oid = %L::regclass',
        format('freshvec.%I', 'queue_' || s.name), target);
      EXECUTE trusted INTO is_trusted;
      IF is_trusted THEN
        RETURN QUERY EXECUTE format(
          'SELECT %L::text, to_jsonb(t) - %L::text[], t.encode_error, t.embedded_at FROM %s AS t
            WHERE t.encode_error IS NOT NULL AND (%s) ORDER BY t.embedded_at DESC LIMIT %L',
          s.name, '{embedding,vector_hash,content_hash,fingerprint,fence,encode_error,embedded_at}',
          target, trusted, most);
      END IF;
    END IF;
  END LOOP;
END $$;
