-- orphans: target rows of one page whose source row is gone, and the page's last key
WITH page AS (SELECT {t_keys} FROM {target} AS t {beyond} ORDER BY {t_keys} LIMIT %(limit)s)
SELECT {t_key_texts}, NOT EXISTS (SELECT FROM {source} AS d WHERE {d_is_t}) FROM page AS t ORDER BY {t_keys}
