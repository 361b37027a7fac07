-- nearest: rows whose embeddings point most nearly the same way; pgvector's cosine distance
SELECT {d_key_texts}, 1 - (t.embedding OPERATOR({schema}.<=>) %(query)s::{vector_type}),
       left(d.freshvec_text, %(width)s)
  FROM {target} AS t JOIN (SELECT {keys}, {text} AS freshvec_text FROM {source}) AS d ON {d_is_t}
 WHERE t.embedding IS NOT NULL AND t.fingerprint = {fingerprint}
 ORDER BY t.embedding OPERATOR({schema}.<=>) %(query)s::{vector_type} LIMIT %(limit)s

-- nearest_plain: the same without pgvector
SELECT {d_key_texts}, s.similarity, left(d.freshvec_text, %(width)s)
  FROM {target} AS t JOIN (SELECT {keys}, {text} AS freshvec_text FROM {source}) AS d ON {d_is_t}
 CROSS JOIN LATERAL (
   SELECT sum(a * b) / nullif(sqrt(sum(a * a)) * sqrt(sum(b * b)), 0) AS similarity
     FROM unnest(t.embedding::float8[], %(query)s::float8[]) AS pair (a, b)
 ) AS s
 WHERE t.embedding IS NOT NULL AND t.fingerprint = {fingerprint}
 ORDER BY s.similarity DESC LIMIT %(limit)s

-- allow_scans: our sessions probe by key; a search without an index on the vectors must read them all
SET enable_seqscan = on
