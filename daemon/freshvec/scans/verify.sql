-- page: the next source rows in key order that are not fresh, and the page's last key
WITH page AS MATERIALIZED (
  SELECT {d_keys}, {hash} AS freshvec_hash
    FROM (SELECT {keys}, {text} AS freshvec_text FROM {source} {beyond} ORDER BY {keys} LIMIT %(limit)s) AS d
)
SELECT {d_key_texts},
       CASE WHEN d.freshvec_hash IS NULL THEN CASE WHEN t.embedding IS NOT NULL THEN 'different' END
            WHEN t.fence IS NULL THEN 'missing'
            WHEN t.encode_error IS NOT NULL THEN 'failed'
            WHEN t.fingerprint <> %(fingerprint)s THEN 'other model'
            WHEN t.content_hash IS DISTINCT FROM d.freshvec_hash THEN 'different'
            WHEN t.embedding IS NULL THEN 'missing'
       END
  FROM page AS d LEFT JOIN {target} AS t ON {d_is_t}
 ORDER BY {d_keys}

-- key: the key of the next source row
SELECT {d_key_texts} FROM (SELECT {keys} FROM {source} {beyond} ORDER BY {keys} LIMIT %(limit)s) AS d ORDER BY {d_keys}

-- ring: wake the worker
SELECT freshvec.ring({sync_name})
