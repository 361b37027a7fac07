-- orphans: target rows of one page: the key, whether it holds a vector of the model, or an error, and whether
-- its source row is gone. OFFSET 0 keeps the planner from hashing the whole source for each page
WITH page AS (
  SELECT {t_keys}, {t_is_embedded} AND t.fingerprint = %(fingerprint)s AS freshvec_embedded,
         t.encode_error IS NOT NULL AS freshvec_failed
    FROM {target} AS t {beyond} ORDER BY {t_keys} LIMIT %(limit)s
)
SELECT {t_key_texts}, t.freshvec_embedded, t.freshvec_failed,
       NOT EXISTS (SELECT FROM {source} AS d WHERE {d_is_t} OFFSET 0)
  FROM page AS t WHERE {is_trusted} ORDER BY {t_keys}

-- counted: what the target was found to hold, unless it has changed meanwhile. What members have counted and
-- not yet added is to be added later.
UPDATE freshvec.sync AS s
   SET rows_embedded = %(embedded)s - c.embedded, rows_failed = %(failed)s - c.failed
  FROM (SELECT coalesce(sum(m.rows_embedded), 0) AS embedded, coalesce(sum(m.rows_failed), 0) AS failed
          FROM freshvec.member AS m WHERE m.sync = {sync_name}) AS c
 WHERE s.name = {sync_name} AND s.rows_embedded + c.embedded = %(embedded_before)s
   AND s.rows_failed + c.failed = %(failed_before)s

-- counts: what the target is said to hold
SELECT s.rows_embedded + coalesce(sum(m.rows_embedded), 0), s.rows_failed + coalesce(sum(m.rows_failed), 0)
  FROM freshvec.sync AS s LEFT JOIN freshvec.member AS m ON m.sync = s.name
 WHERE s.name = {sync_name} GROUP BY s.rows_embedded, s.rows_failed
