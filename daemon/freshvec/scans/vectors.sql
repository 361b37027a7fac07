-- blocks: how many blocks the target has
SELECT pg_relation_size(to_regclass(%(target)s)) / current_setting('block_size')::int

-- sample: keys of rows with a vector of the model, from blocks chosen at random
SELECT {t_key_texts}
  FROM {target} AS t TABLESAMPLE SYSTEM (%(percent)s::float4)
 WHERE {are_trusted} AND {t_is_embedded} AND t.content_hash IS NOT NULL AND t.encode_error IS NULL
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
   AND {t_is_embedded} AND {are_trusted}

-- stored_passages: the same of one passage of each row, drawn at random; with it all of the row's passages in
-- their order, and the place of this one among them
SELECT {d_key_texts}, d.freshvec_hash, c.begins, c.ends, c.hashes, c.place,
       substr(d.freshvec_text, c.begins[c.place] + 1, c.ends[c.place] - c.begins[c.place]),
       c.embedding::real[]
  FROM (SELECT d.*, {hash} AS freshvec_hash
          FROM (SELECT {d_keys}, d.freshvec_text
                  FROM {given_keys}
                  JOIN (SELECT {keys}, {text} AS freshvec_text FROM {source}) AS d ON {d_is_k}
                OFFSET 0) AS d
         OFFSET 0) AS d
  JOIN {target} AS t ON {d_is_t}
 CROSS JOIN LATERAL (
   SELECT array_agg(c.chunk_start ORDER BY c.place) AS begins,
          array_agg(c.chunk_end ORDER BY c.place) AS ends,
          array_agg(c.content_hash ORDER BY c.place) AS hashes,
          min(c.place) FILTER (WHERE c.turn = 1) AS place,
          (array_agg(c.embedding) FILTER (WHERE c.turn = 1))[1] AS embedding
     FROM (SELECT c.*, row_number() OVER (ORDER BY c.chunk_start)::int AS place,
                  row_number() OVER (ORDER BY random()) AS turn
             FROM {vectors} AS c WHERE {c_is_t}) AS c) AS c
 WHERE t.content_hash = d.freshvec_hash AND t.fingerprint = %(fingerprint)s AND t.encode_error IS NULL
   AND {are_trusted} AND {t_is_embedded} AND c.place IS NOT NULL AND array_position(c.hashes, NULL) IS NULL
