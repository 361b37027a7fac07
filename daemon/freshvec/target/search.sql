-- nearest: rows whose embeddings are nearest, by the distance of the index
SELECT {d_key_texts}, 1 - (t.embedding OPERATOR({schema}.<=>) %(query)s::{vector_type}),
       left(d.freshvec_text, %(width)s)
  FROM {searched} JOIN (SELECT {keys}, {text} AS freshvec_text FROM {source}) AS d ON {d_is_t}
 WHERE {t_is_embedded} AND t.fingerprint = {fingerprint}
 ORDER BY t.embedding OPERATOR({schema}.{operator}) %(query)s::{vector_type} LIMIT %(limit)s

-- nearest_binary: the same of the rows that are nearest by the bits of their numbers, many times as many
WITH near AS MATERIALIZED (
  SELECT {t_keys}, t.embedding FROM {searched}
   WHERE {t_is_embedded} AND t.fingerprint = {fingerprint}
   ORDER BY ({quantize}(t.embedding))::bit({dimension}) OPERATOR({schema}.<~>)
            ({quantize}(%(query)s::{vector_type}))::bit({dimension}) LIMIT %(candidates)s
)
SELECT {d_key_texts}, 1 - (t.embedding OPERATOR({schema}.<=>) %(query)s::{vector_type}),
       left(d.freshvec_text, %(width)s)
  FROM near AS t JOIN (SELECT {keys}, {text} AS freshvec_text FROM {source}) AS d ON {d_is_t}
 ORDER BY t.embedding OPERATOR({schema}.<=>) %(query)s::{vector_type} LIMIT %(limit)s

-- nearest_plain: the same without pgvector
SELECT {d_key_texts}, s.similarity, left(d.freshvec_text, %(width)s)
  FROM {searched} JOIN (SELECT {keys}, {text} AS freshvec_text FROM {source}) AS d ON {d_is_t}
 CROSS JOIN LATERAL (
   SELECT sum(a * b) / nullif(sqrt(sum(a * a)) * sqrt(sum(b * b)), 0) AS similarity
     FROM unnest(t.embedding::float8[], %(query)s::float8[]) AS pair (a, b)
 ) AS s
 WHERE {t_is_embedded} AND t.fingerprint = {fingerprint}
 ORDER BY s.similarity DESC LIMIT %(limit)s

-- look_further: an HNSW index gives no more rows than the one, an IVFFlat index those of so many lists
SELECT set_config('hnsw.ef_search', %(candidates)s::text, false), set_config('ivfflat.probes', '10', false)

-- allow_scans: our sessions probe by key; a search without an index on the vectors must read them all
SET enable_seqscan = on
