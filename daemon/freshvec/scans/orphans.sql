-- orphans: target rows of one page: the key, whether it holds a vector of the model, or an error, and whether
-- its source row is gone. OFFSET 0 keeps the planner from hashing the whole source for each page
WITH page AS (
  SELECT {t_keys}, {t_is_embedded} AND t.fingerprint = %(fingerprint)s AS freshvec_embedded,
         t.encode_error IS NOT NULL AS freshvec_failed
    FROM {target} AS t {beyond} ORDER BY {t_keys} LIMIT %(limit)s
)
SELECT {t_key_texts}, t.freshvec_embedded, t.freshvec_failed,
       NOT EXISTS (SELECT FROM {source} AS d WHERE {d_is_t} OFFSET 0)
  FROM page AS t ORDER BY {t_keys}

-- counted: what the target was found to hold, unless it has changed meanwhile
UPDATE freshvec.sync SET rows_embedded = %(embedded)s, rows_failed = %(failed)s
 WHERE name = {sync_name} AND rows_embedded = %(embedded_before)s AND rows_failed = %(failed_before)s

-- counts: what the target is said to hold
SELECT rows_embedded, rows_failed FROM freshvec.sync WHERE name = {sync_name}
