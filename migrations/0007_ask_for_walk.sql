-- What a trigger calls when it cannot note a change, where the transaction is serializable. A look for a
-- request that is there already would be a read of the whole table, which conflicts with the request of any
-- other such transaction, and one of the two would fail at its commit. So none looks: each asks once for
-- itself, and remembers that until it ends.
CREATE OR REPLACE FUNCTION freshvec.ask_for_walk(name text, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  request text := format('%L %L;', name, why);
  asked text;
  is_asked boolean;
BEGIN
  IF current_setting('transaction_isolation') = 'serializable' THEN
    asked := coalesce(current_setting('freshvec.asked', true), '');
    is_asked := strpos(asked, request) > 0;
    IF NOT is_asked THEN
      PERFORM set_config('freshvec.asked', asked || request, true);
    END IF;
  ELSE
    BEGIN
      PERFORM FROM freshvec.rescan WHERE sync = name AND reason = why LIMIT 1 FOR KEY SHARE SKIP LOCKED;
      is_asked := FOUND;
    EXCEPTION WHEN serialization_failure THEN
      is_asked := false;  -- answered since this transaction's snapshot
    END;
  END IF;
  IF NOT is_asked THEN
    INSERT INTO freshvec.rescan (sync, reason) VALUES (name, why);
    PERFORM freshvec.ring(name);
  END IF;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'freshvec: sync % could not ask for a walk (%); run freshvec verify --repair: %',
    name, why, SQLERRM;
END $$;
