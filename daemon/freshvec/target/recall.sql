-- exact: keys of the vectors that are nearest, by looking at all of them
SELECT {t_key_texts} FROM {searched}
 WHERE {t_is_embedded} AND t.fingerprint = {fingerprint} AND {are_trusted}
 ORDER BY t.embedding OPERATOR({schema}.{operator}) %(query)s::{vector_type} LIMIT %(limit)s

-- exact_passages: keys of the rows whose best passages are nearest
SELECT {c_key_texts}
  FROM (SELECT {c_keys}, min(c.embedding OPERATOR({schema}.{operator}) %(query)s::{vector_type}) AS distance
          FROM {vectors} AS c JOIN {target} AS t ON {c_is_t}
         WHERE {t_is_embedded} AND t.fingerprint = {fingerprint} AND {are_trusted}
         GROUP BY {c_keys}) AS c
 ORDER BY c.distance LIMIT %(limit)s

-- exact_plain: the same without pgvector
SELECT {t_key_texts} FROM {searched} CROSS JOIN LATERAL (
   SELECT sum(a * b) / nullif(sqrt(sum(a * a)) * sqrt(sum(b * b)), 0) AS similarity
     FROM unnest(t.embedding::float8[], %(query)s::float8[]) AS pair (a, b)
 ) AS s
 WHERE {t_is_embedded} AND t.fingerprint = {fingerprint} AND {are_trusted}
 ORDER BY s.similarity DESC LIMIT %(limit)s

-- without_index: for the rest of the transaction
SELECT set_config('enable_indexscan', 'off', true), set_config('enable_seqscan', 'on', true)
