-- Rows whose text could not be encoded, with the error: what `embedsync status` lists and `embedsync retry` tries again.

CREATE FUNCTION embedsync.failures(most int DEFAULT 10) RETURNS TABLE (sync text, key jsonb, error text, failed_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s embedsync.sync;
BEGIN
  FOR s IN SELECT * FROM embedsync.sync ORDER BY name LOOP
    IF to_regclass(format('%I.%I', s.target_schema, s.target_table)) IS NOT NULL THEN
      RETURN QUERY EXECUTE format(
        'SELECT %L::text, to_jsonb(t) - %L::text[], t.encode_error, t.embedded_at FROM %I.%I AS t
          WHERE t.encode_error IS NOT NULL ORDER BY t.embedded_at DESC LIMIT %L',
        s.name, '{embedding,content_hash,fingerprint,write_token,encode_error,embedded_at}',
        s.target_schema, s.target_table, most);
    END IF;
  END LOOP;
END $$;
