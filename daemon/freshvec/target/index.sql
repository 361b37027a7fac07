-- look: whether every row has its vector, whether most vectors are of another model still, how many there
-- are, whether this role may make indexes; who else works on those of ours, and on which; the trouble that
-- was noted; and those there are
SELECT s.backfill_done OR s.walk_proves,
       NOT (s.backfill_done OR s.walk_proves) AND 2 * s.rows_embedded < c.reltuples,
       s.rows_embedded, pg_has_role(c.relowner, 'USAGE'), coalesce(l.pid, p.pid), p.name, s.index_trouble,
       (SELECT json_agg(json_build_object(
                 'name', x.relname, 'method', a.amname, 'operators', o.opcname, 'is_valid', i.indisvalid,
                 'is_ours', x.relname ~ ('^freshvec_' || s.name || '_[0-9a-f]{8}$'),
                 'is_plain', i.indnkeyatts = 1 AND i.indpred IS NULL) ORDER BY x.relname)
          FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid JOIN pg_am AS a ON a.oid = x.relam
          JOIN pg_opclass AS o ON o.oid = i.indclass[0]
         WHERE i.indrelid = c.oid AND a.amname <> 'btree'
           AND EXISTS (SELECT FROM pg_depend AS p JOIN pg_attribute AS v ON v.attrelid = p.refobjid
                                                                      AND v.attnum = p.refobjsubid
                        WHERE p.objid = x.oid AND p.classid = 'pg_class'::regclass
                          AND p.refobjid = c.oid AND v.attname = %(vector_column)s))
  FROM freshvec.sync AS s JOIN pg_class AS c ON c.oid = to_regclass(%(vectors)s)
  LEFT JOIN LATERAL (
    SELECT pid FROM pg_locks
     WHERE locktype = 'advisory' AND classid = %(class)s::bigint::oid AND objsubid = 2 AND granted
       AND objid::bigint = hashtext(s.name)::bigint & 4294967295 AND pid <> pg_backend_pid()
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
     LIMIT 1) AS l ON true
  LEFT JOIN LATERAL (
    SELECT p.pid, b.relname::text AS name
      FROM pg_stat_progress_create_index AS p JOIN pg_class AS b ON b.oid = p.index_relid
     WHERE p.relid = c.oid AND b.relname ~ ('^freshvec_' || s.name || '_[0-9a-f]{8}$')
     LIMIT 1) AS p ON true
 WHERE s.name = %(name)s

-- plain: the numbers of a vector
{vector_column} {operators}

-- binary: a bit for each of them
(({quantize}({vector_column}))::bit({dimension})) {operators}

-- build: readers and writers go on meanwhile
CREATE INDEX CONCURRENTLY {index} ON {vectors} USING {method} ({key}) WITH ({options})

-- drop: the same of what is needed no more, or was not finished
DROP INDEX CONCURRENTLY IF EXISTS {index}

-- prepare: the session that builds waits as long as it must, asks nothing of its client until it is done, and
-- so is finished by the server where the worker ends
SELECT set_config(name, value, false) FROM (VALUES
  ('lock_timeout', '0'), ('client_min_messages', 'error'), ('client_connection_check_interval', '0'),
  ('maintenance_work_mem', %(memory)s::text)
) AS setting (name, value) JOIN pg_settings USING (name) WHERE value IS NOT NULL

-- memory: what the graph has to fit in
SELECT setting::bigint * 1024 FROM pg_settings WHERE name = 'maintenance_work_mem'

-- claim: nobody else builds or drops indexes of this sync. Nobody ever waits for this lock: a build waits for
-- whoever does
SELECT pg_try_advisory_lock(%(class)s, hashtext(%(name)s))

-- unclaim: others may
SELECT pg_advisory_unlock(%(class)s, hashtext(%(name)s))

-- interrupt: end what is being done to a sync's indexes
SELECT count(*) FILTER (WHERE pg_cancel_backend(pid)) FROM pg_locks
 WHERE locktype = 'advisory' AND classid = %(class)s::bigint::oid AND objsubid = 2 AND granted
   AND objid::bigint = hashtext(%(name)s)::bigint & 4294967295 AND pid <> pg_backend_pid()
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- trouble: why the declared index is not there
UPDATE freshvec.sync SET index_trouble = %(trouble)s
 WHERE name = %(name)s AND index_trouble IS DISTINCT FROM %(trouble)s

-- progress: of the build of one
SELECT phase, share, waits_for FROM freshvec.sync_indexes()
 WHERE sync = %(name)s AND name = %(index)s AND phase IS NOT NULL

-- ours: the indexes of a sync that freshvec made
SELECT s.vectors_schema, i.name
  FROM freshvec.sync_indexes() AS i JOIN freshvec.sync AS s ON s.name = i.sync
 WHERE i.sync = %(name)s AND i.is_ours
