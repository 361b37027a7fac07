-- function: the trigger that appends changed keys to the queue in the application's own transaction
CREATE OR REPLACE FUNCTION {capture}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $freshvec$
BEGIN
  -- Nothing here may fail or hold up the application's statement: it appends, and touches no row
  -- anybody else could have locked. Over 64 rows in one statement is bulk: later, smaller changes
  -- may overtake it.
  IF TG_OP = 'INSERT' THEN
    INSERT INTO {queue} (bulk, {k})
    SELECT (SELECT count(*) > 64 FROM (SELECT FROM new_rows LIMIT 65) AS first_rows), {keys} FROM new_rows;
  ELSIF TG_OP = 'UPDATE' THEN
    -- EXCEPT, not a join of old and new: a join's cached plan turns quadratic on the first large statement.
    INSERT INTO {queue} (bulk, {k})
    SELECT (SELECT count(*) > 64 FROM (SELECT FROM new_rows LIMIT 65) AS first_rows), {keys}
      FROM (SELECT {keys} FROM (SELECT {keys}, {text} AS freshvec_text FROM new_rows
                                EXCEPT SELECT {keys}, {text} FROM old_rows) AS changed
            UNION
            SELECT {keys} FROM (SELECT {keys} FROM old_rows EXCEPT SELECT {keys} FROM new_rows) AS moved) AS touched;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO {queue} (bulk, {k})
    SELECT (SELECT count(*) > 64 FROM (SELECT FROM old_rows LIMIT 65) AS first_rows), {keys} FROM old_rows;
  ELSE
    INSERT INTO freshvec.rescan (sync, reason) VALUES ({sync_name}, 'truncate');
  END IF;
  IF FOUND THEN
    PERFORM freshvec.ring({sync_name});
  END IF;
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'freshvec: sync {name} could not note this change and will rescan the table: %%', SQLERRM;
  BEGIN
    INSERT INTO freshvec.rescan (sync, reason) VALUES ({sync_name}, SQLERRM);
    PERFORM freshvec.ring({sync_name});
  EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'freshvec: sync {name} could not even ask for the rescan; run freshvec verify: %%', SQLERRM;
  END;
  RETURN NULL;
END
$freshvec$

-- revoke: only triggers may call it
REVOKE ALL ON FUNCTION {capture}() FROM PUBLIC

-- insert: capture INSERT and COPY
CREATE OR REPLACE TRIGGER {trigger} AFTER INSERT ON {relation}
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION {capture}()

-- update: capture UPDATE
CREATE OR REPLACE TRIGGER {trigger} AFTER UPDATE ON {relation}
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION {capture}()

-- delete: capture DELETE
CREATE OR REPLACE TRIGGER {trigger} AFTER DELETE ON {relation}
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION {capture}()

-- truncate: capture TRUNCATE
CREATE OR REPLACE TRIGGER {trigger} AFTER TRUNCATE ON {relation}
FOR EACH STATEMENT EXECUTE FUNCTION {capture}()

-- enable: fire under logical replication too
ALTER TABLE {relation} ENABLE ALWAYS TRIGGER {trigger}

-- installed: how many of a sync's triggers are there and always fire
SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = 'freshvec' AND p.proname = %(function)s AND t.tgenabled = 'A'

-- triggers: a sync's triggers, wherever they are
SELECT rn.nspname, c.relname, t.tgname::text
  FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace rn ON rn.oid = c.relnamespace
 WHERE n.nspname = 'freshvec' AND p.proname = %(function)s

-- drop_trigger: take one trigger away
DROP TRIGGER IF EXISTS {trigger} ON {relation}

-- drop_function: take the trigger function away
DROP FUNCTION IF EXISTS {capture}()
