-- is_intact: whether a change can be noted: nothing in the queue refuses it, the table has our columns, its
-- key is that of the queue and compared as it was, and whoever asks takes both for what they are
CREATE OR REPLACE FUNCTION {is_intact}(changed regclass, taken_for text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $freshvec$
DECLARE
  queue regclass := to_regclass({queue_name});
  -- What an old snapshot shows may be past: whatever was touched by a transaction whose end it does not see.
  is_now boolean := current_setting('transaction_isolation') IN ('read committed', 'read uncommitted');
  unseen int := age(pg_snapshot_xmin(pg_current_snapshot())::xid);
BEGIN
  RETURN taken_for = {layout}
     AND EXISTS (SELECT FROM pg_class AS c
                  WHERE c.oid = queue AND c.relkind = 'r'
                    AND c.relnatts = {queue_count} AND c.relchecks = 0
                    AND NOT (c.relhastriggers AND (EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid)
                                                   OR NOT is_now))  -- it stays when they are dropped
                    AND NOT (c.relhasrules AND (EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid)
                                                OR NOT is_now))
                    AND NOT (c.relrowsecurity AND (c.relforcerowsecurity
                                                   OR pg_get_userbyid(c.relowner) <> current_user))
                    AND has_table_privilege(c.oid, 'INSERT') AND (is_now OR age(c.xmax) > unseen))
     AND (SELECT count(*) = {noted_count} FROM pg_attribute AS a
           WHERE a.attrelid = queue AND (a.attname, a.atttypid, a.atttypmod) IN ({queue_columns})
             AND (is_now OR age(a.xmax) > unseen))
     AND (SELECT count(*) = {column_count} FROM pg_attribute AS a
           WHERE a.attrelid = changed AND a.attnum > 0 AND a.attname = ANY ({column_names})
             AND (a.attname <> ALL ({key_names})
                  OR (a.attname, a.atttypid, a.atttypmod) IN ({key_columns}))
             AND (is_now OR age(a.xmax) > unseen)) {and_same_operators};
END
$freshvec$

-- was_intact: the same of the table itself and all its partitions, looked at once in a session
CREATE OR REPLACE FUNCTION {was_intact}(source regclass, queue regclass, taken_for text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $freshvec$
BEGIN
  -- It is not immutable, but said to be: so Postgres puts the answer into the plan of the expression that
  -- calls it, and makes that plan anew once one of the tables has been altered that are its constants, or any
  -- operator or schema. What an old snapshot shows is not to be kept.
  RETURN current_setting('transaction_isolation') IN ('read committed', 'read uncommitted')
     AND {is_intact}(source, taken_for) {and_no_others};
END
$freshvec$

-- function: notes what a statement changed, in the application's own transaction
CREATE OR REPLACE FUNCTION {capture}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $freshvec$
#variable_conflict use_column
DECLARE
  queue regclass := {found_queue};
  size bigint := pg_relation_size(queue);  -- whose look takes in what others have altered
  is_source boolean := false;
  can_note boolean := false;
BEGIN
  -- Nothing here may fail or hold up the application's statement: it appends, touches no row anybody else
  -- could have locked, and calls nothing that is not Postgres's own. Over 64 rows in one statement is bulk:
  -- smaller changes may overtake it.
  {refuses};
  IF TG_OP = 'INSERT' THEN
    INSERT INTO {queue} (bulk, {k})
    SELECT EXISTS (SELECT FROM new_rows OFFSET 64), {n_keys} FROM new_rows AS n WHERE {n_has_key};
  ELSIF TG_OP = 'UPDATE' THEN
    -- A FULL JOIN is hashed or merged, never a nested loop: the plan cached from a small statement stays good
    -- for a large one. Values are compared as they are stored: no operator of the type, collation or setting
    -- is asked. A row whose key is NULL, while the application moves its key to another column, is none that
    -- we know.
    INSERT INTO {queue} (bulk, {k})
    SELECT EXISTS (SELECT FROM new_rows OFFSET 64), {n_or_o_keys}
      FROM new_rows AS n FULL JOIN old_rows AS o ON {n_is_o}
     WHERE ({n_key} IS NULL OR {o_key} IS NULL OR {changed}) AND ({n_has_key} OR {o_has_key});
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO {queue} (bulk, {k})
    SELECT EXISTS (SELECT FROM old_rows OFFSET 64), {o_keys} FROM old_rows AS o WHERE {o_has_key};
  ELSE
    PERFORM freshvec.ask_for_walk({sync_name}, 'truncate');
    RETURN NULL;
  END IF;
  -- Whoever gets this lock is not to ring. The same is looked for in ring; a call costs more than this.
  IF FOUND AND NOT pg_try_advisory_xact_lock_shared({bell_class}, hashtext({sync_name}))
     AND {may_ring} THEN
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
  -- Rows noted by this transaction: from the 65th on it counts as bulk, and only the first one rings.
  noted int := coalesce(nullif(current_setting({noted}, true), ''), '0')::int;
  queue regclass := {found_queue};
  size bigint := CASE WHEN noted < 65 THEN pg_relation_size(queue) WHEN queue IS NOT NULL THEN 0 END;
  is_source boolean := false;
  can_note boolean := false;
  own xid8;
  ignored text;
BEGIN
  {refuses};
  -- Tables stand here as constants to have this planned anew once they are altered: columns may have other
  -- types then. The table's own number does not: one that takes its place needs no other function.
  IF TG_OP = 'UPDATE' AND is_source THEN
    IF {new_is_old} AND NOT ({new_changed}) AND {source_name}::regclass IS NOT NULL THEN
      RETURN NULL;
    END IF;
  ELSIF TG_OP = 'UPDATE' AND TG_RELID IN ({children}) AND {new_is_old} AND NOT ({new_changed}) THEN
    RETURN NULL;
  END IF;
  IF noted = 0 AND current_setting('session_replication_role') = 'replica'
     AND current_setting('transaction_isolation') <> 'serializable' THEN
    -- An apply worker that acts as the table's owner takes back, after each row, what was set. There
    -- this transaction's own entries tell. A serializable one would fail for what others append meanwhile.
    own := pg_current_xact_id();
    IF EXISTS (SELECT FROM {queue} WHERE bulk AND xid = own) THEN
      noted := 64;
    ELSE
      SELECT count(*) INTO noted FROM (SELECT FROM {queue} WHERE NOT bulk AND xid = own LIMIT 64) AS e;
    END IF;
  END IF;
  IF noted < 65 THEN
    noted := noted + 1;
    ignored := set_config({noted}, noted::text, true);
  END IF;
  -- A row whose key is NULL, while the application moves its key to another column, is none that we know.
  IF TG_OP <> 'INSERT' AND {old_has_key} AND (TG_OP = 'DELETE' OR ({new_is_old}) IS NOT TRUE) THEN
    INSERT INTO {queue} (bulk, {k}) VALUES (noted > 64, {old_keys});
  END IF;
  IF TG_OP <> 'DELETE' AND {new_has_key} THEN
    INSERT INTO {queue} (bulk, {k}) VALUES (noted > 64, {new_keys});
  END IF;
  IF noted = 1 AND {may_ring} THEN
    PERFORM freshvec.ring({sync_name});
  END IF;
  RETURN NULL;
END
$freshvec$

-- revoke: only triggers may call them, and these the rest
REVOKE ALL ON FUNCTION {capture}(), {capture_row}(), {is_intact}(regclass, text),
  {was_intact}(regclass, regclass, text)
  FROM PUBLIC

-- refuses: what both functions do first: where a change cannot be noted, they ask for a walk
-- A look at the catalogue takes the place of an EXCEPTION block, which is a subtransaction. What names a
  -- table cannot even be planned where that is not there. A queue without a size has been dropped while its
  -- lock was waited for. Then this may be the old one of two functions: it says which key it knows.
  IF size IS NOT NULL {and_may_compare} THEN
    is_source := {is_source};
    IF is_source THEN
      can_note := {was_intact}({source_name}::regclass, {queue_name}::regclass, {layout});
    END IF;
    can_note := can_note OR {is_intact}(TG_RELID, {layout});
  END IF;
  IF NOT can_note OR size > {queue_bytes} THEN
    -- Once in a transaction, not for each row: the walk begins after its end.
    IF current_setting({asked}, true) IS DISTINCT FROM pg_current_xact_id()::text THEN
      PERFORM set_config({asked}, pg_current_xact_id()::text, true);
      BEGIN
        IF can_note THEN
          PERFORM freshvec.ask_for_walk({sync_name}, 'the queue is full');
        ELSE
          RAISE WARNING
            'freshvec: sync {name} cannot note this change: table or queue is not as it was applied';
          PERFORM freshvec.ask_for_walk({sync_name}, 'the table has changed');
        END IF;
      EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'freshvec: sync {name} could not ask for a walk; run freshvec verify --repair: %%',
          SQLERRM;
      END;
    END IF;
    RETURN NULL;
  END IF;

-- found_queue: to look for a name fails for who may not use its schema, or no more
CASE WHEN has_schema_privilege(to_regnamespace('freshvec'), 'USAGE') THEN to_regclass({queue_name}) END

-- may_ring: whether who applied may; without, the sweep finds the change
has_function_privilege(to_regprocedure('freshvec.ring(text)'), 'EXECUTE')

-- is_source: whether the table that has the source's name is the one that it is applied to
CASE WHEN has_schema_privilege(to_regnamespace({source_schema}), 'USAGE')
         THEN to_regclass({source_name}) {is_of_source} END

-- and_same_operators: nor was an operator moved that keys are compared by (it may be an extension's), nor
-- its schema renamed, nor what it is hashed by dropped; and it may be used
AND (SELECT count(*) = {operator_count}
            FROM pg_operator AS o JOIN pg_namespace AS n ON n.oid = o.oprnamespace
           WHERE (o.oid, n.nspname, o.oprname) IN ({operators}) AND has_schema_privilege(n.oid, 'USAGE')
             AND (is_now OR age(o.xmax) > unseen AND age(n.xmax) > unseen)
             AND (NOT o.oprcanhash OR EXISTS (  -- else a plan that hashes fails as it begins
                   SELECT FROM pg_amop AS h JOIN pg_am ON pg_am.oid = h.amopmethod
                    WHERE h.amopopr = o.oid AND pg_am.amname = 'hash'
                      AND (is_now OR age(h.xmax) > unseen))))

-- and_may_compare: nor may who applied run no more what compares keys, which is no table, operator or schema
AND has_function_privilege({function}::oid, 'EXECUTE')

-- and_no_others: no partition is that of a table which this one took the place of: it may have other columns
AND NOT EXISTS (SELECT FROM pg_trigger AS t
                      WHERE t.tgfoid = {row_function}::regproc
                        AND t.tgrelid NOT IN (SELECT relid FROM pg_partition_tree(source)))

-- insert: capture INSERT and COPY
CREATE OR REPLACE TRIGGER {trigger} AFTER INSERT ON {relation}
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION {capture}({version})

-- update: capture UPDATE
CREATE OR REPLACE TRIGGER {trigger} AFTER UPDATE ON {relation}
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION {capture}({version})

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
DROP FUNCTION IF EXISTS {capture_row}();
DROP FUNCTION IF EXISTS {was_intact}(regclass, regclass, text);
DROP FUNCTION IF EXISTS {is_intact}(regclass, text)
