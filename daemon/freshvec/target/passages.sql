-- kept: the passages that rows have in the target: a row's place, and the hash of one of its passages
SELECT k.place::int, c.content_hash
  FROM {given_keys} JOIN {target} AS t ON {t_is_k} JOIN {vectors} AS c ON {c_is_t}
 WHERE t.fingerprint = %(fingerprint)s AND c.content_hash IS NOT NULL

-- lacking: places of rows that rely on a vector which is not there any more
SELECT DISTINCT p.place
  FROM unnest(%(places)s::int[], %(hash_slots)s::int[]) AS p (place, hash_slot)
  JOIN {given_keys} ON k.place = p.place
 WHERE NOT EXISTS (
   SELECT FROM {target} AS t JOIN {vectors} AS c ON {c_is_t}
    WHERE {t_is_k} AND t.fingerprint = %(fingerprint)s
      AND c.content_hash = substring(%(hashes)s::bytea FROM (p.hash_slot - 1) * 16 + 1 FOR 16))

-- replace: the passages of rows that were written just now, which their fences tell. One that is there
-- already stays, and keeps its number and, where none is given, its vector.
WITH written AS MATERIALIZED (
  SELECT k.place::int AS place, {t_keys}
    FROM unnest({key_params}, %(fences)s::bigint[]) WITH ORDINALITY AS k ({k}, fence, place)
    JOIN {target} AS t ON {t_is_k} AND t.fence = k.fence
), given AS MATERIALIZED (
  SELECT w.place, p.begins, p.ends, p.embedding, h.content_hash,
         row_number() OVER (PARTITION BY w.place, h.content_hash ORDER BY p.begins) AS turn
    FROM unnest(%(places)s::int[], %(begins)s::int[], %(ends)s::int[], %(hash_slots)s::int[]{given_vectors})
         AS p (place, begins, ends, hash_slot{vector})
    JOIN written AS w ON w.place = p.place
   CROSS JOIN LATERAL (SELECT substring(%(hashes)s::bytea FROM (p.hash_slot - 1) * 16 + 1 FOR 16)
                         AS content_hash) AS h
), there AS MATERIALIZED (
  SELECT r.place, c.chunk, c.chunk_start, c.chunk_end, c.content_hash,
         row_number() OVER (PARTITION BY r.place, c.content_hash ORDER BY c.chunk_start, c.chunk) AS turn,
         max(c.chunk) OVER (PARTITION BY r.place) AS highest
    FROM written AS r JOIN {vectors} AS c ON {c_is_r}
), pairs AS MATERIALIZED (
  SELECT place, content_hash, g.begins, g.ends, g.embedding, t.chunk, t.chunk_start, t.chunk_end
    FROM given AS g FULL JOIN there AS t USING (place, content_hash, turn)
), gone AS (
  DELETE FROM {vectors} AS c USING pairs AS p JOIN written AS r ON r.place = p.place
   WHERE {c_is_r} AND c.chunk = p.chunk AND p.begins IS NULL
), moved AS (
  UPDATE {vectors} AS c
     SET chunk_start = p.begins, chunk_end = p.ends, embedding = coalesce(p.embedding, c.embedding)
    FROM pairs AS p JOIN written AS r ON r.place = p.place
   WHERE {c_is_r} AND c.chunk = p.chunk
     AND (p.embedding IS NOT NULL OR (p.begins, p.ends) <> (p.chunk_start, p.chunk_end))
)
INSERT INTO {vectors} ({keys}, chunk, chunk_start, chunk_end, content_hash, embedding)
SELECT {r_keys},
       coalesce((SELECT max(t.highest) FROM there AS t WHERE t.place = p.place), 0)
         + row_number() OVER (PARTITION BY p.place ORDER BY p.begins),
       p.begins, p.ends, p.content_hash,
       coalesce(p.embedding, (SELECT c.embedding FROM {vectors} AS c
                               WHERE {c_is_r} AND c.content_hash = p.content_hash LIMIT 1))
  FROM pairs AS p JOIN written AS r ON r.place = p.place
 WHERE p.begins IS NOT NULL AND p.chunk IS NULL
