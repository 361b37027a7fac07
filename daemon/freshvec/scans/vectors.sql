-- blocks: how many blocks the target has
SELECT pg_relation_size(to_regclass(%(target)s)) / current_setting('block_size')::int

-- sample: keys of rows with a vector of the model, from blocks chosen at random
SELECT {t_key_texts}
  FROM {target} AS t TABLESAMPLE SYSTEM (%(percent)s::float4)
 WHERE {t_is_embedded} AND t.content_hash IS NOT NULL AND t.encode_error IS NULL
   AND t.fingerprint = %(fingerprint)s
 ORDER BY random() LIMIT %(rows)s

-- fence: the order of rows about to be read
SELECT nextval('freshvec.fence')

-- stored: of these keys the rows whose vector should be that of their text now, with both
SELECT {d_key_texts}, d.freshvec_hash,
       left(d.freshvec_text, coalesce(%(characters)s::int, length(d.freshvec_text))), t.embedding::real[]
  FROM (SELECT d.*, {hash} AS freshvec_hash
          FROM (SELECT {d_keys}, d.freshvec_text
                  FROM {given_keys}
                  JOIN (SELECT {keys}, {text} AS freshvec_text FROM {source}) AS d ON {d_is_k}
                OFFSET 0) AS d
         OFFSET 0) AS d
  JOIN {searched} ON {d_is_t}
 WHERE t.content_hash = d.freshvec_hash AND t.fingerprint = %(fingerprint)s AND t.encode_error IS NULL
   AND {t_is_embedded}
