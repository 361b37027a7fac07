-- page: the next source rows in key order that are not fresh, and the page's last key
WITH page AS MATERIALIZED (
  SELECT d.*, {hash} AS embedsync_hash
    FROM (SELECT {keys}, {text} AS embedsync_text FROM {source} {beyond} ORDER BY {keys} LIMIT %(limit)s) AS d
)
SELECT {d_key_texts},
       CASE WHEN t.write_token IS NULL THEN 'missing'
            WHEN t.encode_error IS NOT NULL THEN 'failed'
            WHEN t.fingerprint <> %(fingerprint)s THEN 'other model'
            WHEN t.content_hash IS DISTINCT FROM d.embedsync_hash THEN 'different'
            WHEN (t.embedding IS NULL) <> (d.embedsync_hash IS NULL) THEN 'missing'
       END
  FROM page AS d LEFT JOIN {target} AS t ON {d_is_t}
 ORDER BY {d_keys}
