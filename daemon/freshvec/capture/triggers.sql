-- function: notes what a statement changed, in the application's own transaction
CREATE OR REPLACE FUNCTION {capture}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $freshvec$
#variable_conflict use_column
DECLARE
  queue regclass := {queue_oid};
BEGIN
  -- Nothing here may fail or hold up the application's statement: it appends, touches no row anybody else
  -- could have locked, and calls nothing that is not Postgres's own. Over 64 rows in one statement is bulk:
  -- smaller changes may overtake it. The look at the catalogue takes the place of an EXCEPTION block, which
  -- is a subtransaction.
  IF NOT ({intact}) THEN
    BEGIN
      RAISE WARNING 'freshvec: sync {name} cannot note this change: table or queue is not as it was applied';
      PERFORM freshvec.ask_for_walk({sync_name}, 'the table has changed');
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'freshvec: sync {name} could not ask for a walk; run freshvec verify --repair: %%',
        SQLERRM;
    END;
    RETURN NULL;
  ELSIF pg_relation_size(queue) > {queue_bytes} THEN
    PERFORM freshvec.ask_for_walk({sync_name}, 'the queue is full');
    RETURN NULL;
  ELSIF TG_OP = 'INSERT' THEN
    INSERT INTO {queue} (bulk, {k})
    SELECT (SELECT count(*) > 64 FROM (SELECT FROM new_rows LIMIT 65) AS first_rows),
           {n_keys} FROM new_rows AS n;
  ELSIF TG_OP = 'UPDATE' THEN
    -- A FULL JOIN is hashed or merged, never a nested loop: the plan cached from a small statement stays good
    -- for a large one. Values are compared as they are stored: no operator of the type, collation or setting
    -- is asked.
    INSERT INTO {queue} (bulk, {k})
    SELECT (SELECT count(*) > 64 FROM (SELECT FROM new_rows LIMIT 65) AS first_rows),
           {n_or_o_keys}
      FROM new_rows AS n FULL JOIN old_rows AS o ON {n_is_o}
     WHERE {n_key} IS NULL OR {o_key} IS NULL OR {changed};
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO {queue} (bulk, {k})
    SELECT (SELECT count(*) > 64 FROM (SELECT FROM old_rows LIMIT 65) AS first_rows),
           {o_keys} FROM old_rows AS o;
  ELSE
    PERFORM freshvec.ask_for_walk({sync_name}, 'truncate');
    RETURN NULL;
  END IF;
  -- Whoever gets this lock is not to ring. The same is looked for in ring; a call costs more than this.
  IF FOUND AND NOT pg_try_advisory_xact_lock_shared({bell_class}, hashtext({sync_name})) THEN
    PERFORM freshvec.ring({sync_name});
  END IF;
  RETURN NULL;
END
$freshvec$

-- row_function: the same for one row: of partitions and children, and of rows that replication brings
CREATE OR REPLACE FUNCTION {capture_row}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $freshvec$
#variable_conflict use_column
DECLARE
  queue regclass := {queue_oid};
  noted int;
BEGIN
  IF NOT ({intact}) THEN
    BEGIN
      RAISE WARNING 'freshvec: sync {name} cannot note this change: table or queue is not as it was applied';
      PERFORM freshvec.ask_for_walk({sync_name}, 'the table has changed');
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'freshvec: sync {name} could not ask for a walk; run freshvec verify --repair: %%',
        SQLERRM;
    END;
    RETURN NULL;
  ELSIF pg_relation_size(queue) > {queue_bytes} THEN
    PERFORM freshvec.ask_for_walk({sync_name}, 'the queue is full');
    RETURN NULL;
  ELSIF TG_OP = 'UPDATE' AND {new_is_old} AND NOT ({new_changed}) THEN
    RETURN NULL;
  END IF;
  -- Rows noted by this transaction: from the 65th on it counts as bulk, and only the first one rings.
  noted := coalesce(nullif(current_setting({noted}, true), ''), '0')::int + 1;
  -- An apply worker that acts as the table's owner takes back, after each row, what was set. There the number
  -- that was drawn 64 ago tells, if it is this transaction's own; age() is less for what began later.
  IF noted = 1 AND current_setting('session_replication_role') = 'replica'
     AND EXISTS (SELECT FROM {queue}
                  WHERE seq = (SELECT pg_sequence_last_value(sequence::regclass) - 63
                                 FROM pg_get_serial_sequence({queue_name}, 'seq') AS sequence)
                    AND age(xmin) <= age(pg_current_xact_id()::xid)) THEN
    noted := 65;
  END IF;
  PERFORM set_config({noted}, noted::text, true);
  IF TG_OP <> 'INSERT' AND (TG_OP = 'DELETE' OR NOT ({new_is_old})) THEN
    INSERT INTO {queue} (bulk, {k}) VALUES (noted > 64, {old_keys});
  END IF;
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO {queue} (bulk, {k}) VALUES (noted > 64, {new_keys});
  END IF;
  IF noted = 1 THEN
    PERFORM freshvec.ring({sync_name});
  END IF;
  RETURN NULL;
END
$freshvec$

-- revoke: only triggers may call them
REVOKE ALL ON FUNCTION {capture}(), {capture_row}() FROM PUBLIC

-- queue_oid: the queue, if nothing in it can refuse what is appended
(SELECT c.oid FROM pg_class AS c
           WHERE c.oid = to_regclass({queue_name}) AND c.relkind = 'r' AND c.relnatts = {queue_columns}
             AND c.relchecks = 0 AND NOT c.relhastriggers AND NOT c.relhasrules AND NOT c.relrowsecurity
             AND has_table_privilege(c.oid, 'INSERT'))

-- intact: whether the queue is there and the table has the columns that are noted and compared
queue IS NOT NULL
     AND (SELECT count(*) = {column_count} FROM pg_attribute AS a
           WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND a.attname = ANY ({column_names})
             AND (a.attname <> ALL ({key_names}) OR a.atttypid = ANY ({key_types}::oid[])))

-- insert: capture INSERT and COPY
CREATE OR REPLACE TRIGGER {trigger} AFTER INSERT ON {relation}
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION {capture}({version})

-- update: capture UPDATE
CREATE OR REPLACE TRIGGER {trigger} AFTER UPDATE ON {relation}
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION {capture}({version})

-- delete: capture DELETE
CREATE OR REPLACE TRIGGER {trigger} AFTER DELETE ON {relation}
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION {capture}({version})

-- truncate: capture TRUNCATE
CREATE OR REPLACE TRIGGER {trigger} AFTER TRUNCATE ON {relation}
FOR EACH STATEMENT EXECUTE FUNCTION {capture}({version})

-- row: capture every change of a row
CREATE OR REPLACE TRIGGER {trigger} AFTER INSERT OR UPDATE OR DELETE ON {relation}
FOR EACH ROW EXECUTE FUNCTION {capture_row}({version})

-- enable_origin: fire in ordinary sessions
ALTER TABLE {relation} ENABLE TRIGGER {trigger}

-- enable_replica: fire in sessions that replicate, and only there
ALTER TABLE {relation} ENABLE REPLICA TRIGGER {trigger}

-- enable_always: fire in every session
ALTER TABLE {relation} ENABLE ALWAYS TRIGGER {trigger}

-- installed: a sync's triggers, wherever they are, whether each is a partition's copy, and its argument
SELECT t.tgrelid::bigint, t.tgname::text, t.tgenabled::text,
       rn.nspname::text, c.relname::text, t.tgparentid <> 0,
       split_part(encode(t.tgargs, 'escape'), '\000', 1)
  FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace rn ON rn.oid = c.relnamespace
 WHERE n.nspname = 'freshvec' AND p.proname = ANY (ARRAY['capture_' || %(name)s, 'capture_row_' || %(name)s])
 ORDER BY 1, 2

-- drop_trigger: take one trigger away
DROP TRIGGER IF EXISTS {trigger} ON {relation}

-- drop_functions: take the trigger functions away
DROP FUNCTION IF EXISTS {capture}();
DROP FUNCTION IF EXISTS {capture_row}()
