-- superseded: places of outcomes whose row has a later one, under another spelling of its key
SELECT o.place::int
  FROM (SELECT k.place, row_number() OVER (PARTITION BY {k_typed} ORDER BY k.fence DESC) AS turn
          FROM unnest({key_params}, %(fences)s::bigint[]) WITH ORDINALITY AS k ({k}, fence, place)) AS o
 WHERE o.turn > 1

-- upsert: write the vectors of rows that exist, unless a later read has been written. `before` sees the
-- target as it was, so that what it holds is counted by differences; a row that another member has written
-- since is taken for one that has a vector. Gives: rows embedded and failed, more or fewer; the places of
-- rows whose write was refused though the target holds another text, the highest fence among those, and how
-- many of these fences the sequence has never given.
WITH given AS MATERIALIZED (
  SELECT {once_k} {d_keys_as_k}, {embedding} AS {kept_as}, k.fence, k.encode_error, k.place,
         CASE WHEN k.hash_slot > 0
              THEN substring(%(hashes)s::bytea FROM (k.hash_slot - 1) * 16 + 1 FOR 16) END
           AS content_hash
    FROM unnest({key_params}, %(hash_slots)s::int[], %(fences)s::bigint[], %(errors)s::text[]{vectors})
         WITH ORDINALITY AS k ({k}, hash_slot, fence, encode_error{vector}, place)
    JOIN {source} AS d ON {d_is_k}
), before AS MATERIALIZED (
  SELECT g.place, t.fence < g.fence AS admits, t.fence,
         {t_is_embedded} AND t.fingerprint = %(fingerprint)s AS embedded,
         t.encode_error IS NOT NULL AS failed,
         t.content_hash IS DISTINCT FROM g.content_hash OR t.fingerprint <> %(fingerprint)s AS differs
    FROM given AS g JOIN {target} AS t ON {t_is_g}
), written AS (
  INSERT INTO {target} AS t ({keys}, {kept_as}, content_hash, fingerprint, fence, encode_error)
  SELECT {g_keys}, g.{kept_as}, g.content_hash, %(fingerprint)s, g.fence, g.encode_error FROM given AS g
      ON CONFLICT ({keys}) DO UPDATE
     SET {kept_as} = excluded.{kept_as}, content_hash = excluded.content_hash,
         fingerprint = excluded.fingerprint,
         fence = excluded.fence, encode_error = excluded.encode_error, embedded_at = excluded.embedded_at
   WHERE t.fence < excluded.fence
  RETURNING {t_is_embedded} AS embedded, t.encode_error IS NOT NULL AS failed, t.xmax = 0 AS is_new
)
SELECT (SELECT count(*) FILTER (WHERE embedded) - count(*) FILTER (WHERE NOT is_new) FROM written)
       - (SELECT count(*) FILTER (WHERE embedded AND admits) - count(*) FILTER (WHERE admits) FROM before),
       (SELECT count(*) FILTER (WHERE failed) FROM written)
       - (SELECT count(*) FILTER (WHERE failed AND admits) FROM before),
       (SELECT array_agg(place::int) FROM before WHERE NOT admits AND differs),
       (SELECT max(fence) FROM before WHERE NOT admits AND differs),
       (SELECT count(*) FROM before
         WHERE NOT admits AND differs AND fence > (SELECT last_value FROM freshvec.fence))

-- vectors: one vector per row, the last rows having none
, %(vectors)s::{element}[]

-- slice: a row's numbers among those of all, where an array of vectors is not to be had
CASE WHEN k.place <= cardinality(%(vectors)s::real[]) / {dimension}
              THEN (%(vectors)s::real[])[(k.place - 1) * {dimension} + 1 : k.place * {dimension}] END

-- touch: a row was read again and found unchanged: raise its fence, so that an older read cannot overwrite it
UPDATE {target} AS t SET fence = k.fence
  FROM unnest({key_params}, %(fences)s::bigint[], %(hash_slots)s::int[]) AS k ({k}, fence, hash_slot)
 WHERE {t_is_k} AND t.fence < k.fence AND t.fingerprint = %(fingerprint)s
   AND t.content_hash = substring(%(hashes)s::bytea FROM (k.hash_slot - 1) * 16 + 1 FOR 16)

-- overtaken: places of rows that an older reading was written to between their reading and their touch
SELECT k.place::int FROM unnest({key_params}, %(fences)s::bigint[]) WITH ORDINALITY AS k ({k}, fence, place)
 WHERE NOT EXISTS (SELECT FROM {target} AS t WHERE {t_is_k} AND t.fence >= k.fence)

-- clear: rows that have no text any more; gives rows embedded and failed, as a number below zero
WITH gone AS (
  DELETE FROM {target} AS t USING unnest({key_params}, %(fences)s::bigint[]) AS k ({k}, fence)
   WHERE {t_is_k} AND t.fence < k.fence
  RETURNING {t_is_embedded} AND t.fingerprint = %(fingerprint)s AS embedded,
            t.encode_error IS NOT NULL AS failed
)
SELECT -count(*) FILTER (WHERE embedded), -count(*) FILTER (WHERE failed) FROM gone

-- remove: the same of rows that are gone
WITH gone AS (
  DELETE FROM {target} AS t USING unnest({key_params}, %(fences)s::bigint[]) AS k ({k}, fence)
   WHERE {t_is_k} AND t.fence < k.fence AND NOT EXISTS (SELECT FROM {source} AS d WHERE {d_is_t})
  RETURNING {t_is_embedded} AND t.fingerprint = %(fingerprint)s AS embedded,
            t.encode_error IS NOT NULL AS failed
)
SELECT -count(*) FILTER (WHERE embedded), -count(*) FILTER (WHERE failed) FROM gone

-- refused: places of rows that a later reading has been written of, and that are still there; the highest of
-- those fences, and how many of them the sequence has never given
SELECT array_agg(k.place::int), max(t.fence),
       count(*) FILTER (WHERE t.fence > (SELECT last_value FROM freshvec.fence))
  FROM unnest({key_params}, %(fences)s::bigint[]) WITH ORDINALITY AS k ({k}, fence, place)
  JOIN {target} AS t ON {t_is_k}
 WHERE t.fence > k.fence AND ({t_is_embedded} OR t.encode_error IS NOT NULL)

-- clear_tombstones: rows that were written to keep an older reading out
DELETE FROM {target} AS t USING unnest({key_params}, %(fences)s::bigint[]) AS k ({k}, fence)
 WHERE {t_is_k} AND t.fence = k.fence AND t.content_hash IS NULL AND t.encode_error IS NULL

-- raise_fence: a target that was restored holds higher fences than the sequence gives; the next one is above
-- them
SELECT setval('freshvec.fence', %(above)s) FROM freshvec.fence WHERE last_value <= %(above)s

-- count: what the target holds, kept by differences
UPDATE freshvec.sync
   SET rows_embedded = greatest(0, rows_embedded + %(embedded)s),
       rows_failed = greatest(0, rows_failed + %(failed)s),
       refused = refused + %(refused)s
 WHERE name = {sync_name}

-- count_of_member: the same, by a member of those who share the sync
UPDATE freshvec.member
   SET rows_embedded = rows_embedded + %(embedded)s, rows_failed = rows_failed + %(failed)s,
       refused = refused + %(refused)s
 WHERE sync = {sync_name} AND pid = %(pid)s
