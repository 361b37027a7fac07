-- nearest: rows whose embeddings are nearest, by the distance of the index
SELECT {d_key_texts}, 1 - (t.embedding OPERATOR({schema}.<=>) %(query)s::{vector_type}),
       left(d.freshvec_text, %(width)s)
  FROM {searched} JOIN (SELECT {keys}, {text} AS freshvec_text FROM {source}) AS d ON {d_is_t}
 WHERE {t_is_embedded} AND t.fingerprint = {fingerprint} AND {are_trusted}
 ORDER BY t.embedding OPERATOR({schema}.{operator}) %(query)s::{vector_type} LIMIT %(limit)s

-- nearest_binary: the same of the rows that are nearest by the bits of their numbers, many times as many
WITH near AS MATERIALIZED (
  SELECT {t_keys}, t.embedding FROM {searched}
   WHERE {t_is_embedded} AND t.fingerprint = {fingerprint} AND {are_trusted}
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
 WHERE {t_is_embedded} AND t.fingerprint = {fingerprint} AND {are_trusted}
 ORDER BY s.similarity DESC LIMIT %(limit)s

-- nearest_passages: of each of the rows whose passages are nearest the best one, and what that says. Where
-- few rows have many passages, more candidates find more rows.
WITH near AS MATERIALIZED (
  SELECT {c_keys}, c.chunk_start, c.chunk_end, c.embedding FROM {vectors} AS c JOIN {target} AS t ON {c_is_t}
   WHERE {t_is_embedded} AND t.fingerprint = {fingerprint} AND {are_trusted}
   ORDER BY {by_index} LIMIT %(candidates)s
), best AS (
  SELECT DISTINCT ON ({c_keys}) c.*,
         c.embedding OPERATOR({schema}.{operator}) %(query)s::{vector_type} AS distance
    FROM near AS c ORDER BY {c_keys}, distance
)
SELECT {d_key_texts}, 1 - (c.embedding OPERATOR({schema}.<=>) %(query)s::{vector_type}),
       substr(d.freshvec_text, c.chunk_start + 1, least(c.chunk_end - c.chunk_start, %(width)s)),
       (SELECT count(*) FROM near)
  FROM best AS c JOIN (SELECT {keys}, {text} AS freshvec_text FROM {source}) AS d ON {d_is_c}
 ORDER BY c.distance LIMIT %(limit)s

-- by_vectors: the order of an index on the vectors
c.embedding OPERATOR({schema}.{operator}) %(query)s::{vector_type}

-- by_bits: that of one on their bits
({quantize}(c.embedding))::bit({dimension}) OPERATOR({schema}.<~>)
            ({quantize}(%(query)s::{vector_type}))::bit({dimension})

-- look_further: an HNSW index gives no more rows than the one, an IVFFlat index those of so many lists
SELECT set_config('hnsw.ef_search', %(candidates)s::text, false), set_config('ivfflat.probes', '10', false)

-- allow_scans: our sessions probe by key; a search without an index on the vectors must read them all
SET enable_seqscan = on
