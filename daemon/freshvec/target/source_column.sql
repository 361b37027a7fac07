-- add_column: without a default, which Postgres does without touching a row
ALTER TABLE {source} ADD COLUMN {vector_column} {vector_type}

-- claim: for the rest of the transaction: nothing is waited for long, so that no application waits long for
-- us and none is chosen as the victim of a deadlock, which is looked for only later; and the triggers of this
-- sync do not note the vectors that we write
SELECT set_config('lock_timeout', %(milliseconds)s, true), set_config('freshvec.writes', {sync_name}, true)

-- path: what the database gives this role: triggers of the application's are to find what they name
SELECT reset_val FROM pg_settings WHERE name = 'search_path'

-- own_path: for our own statements again
SET LOCAL search_path = pg_catalog, pg_temp

-- upsert: write vectors into rows of the source that nobody else has, and whose text is still theirs, unless
-- a later read has been written; then what we know of them. A row is locked in its newest version, and its
-- text is that version's, over the table by its own name, which an expression may use. What is held already
-- is not written again. Gives, as target/upsert.sql does: rows embedded and failed, more or fewer; places
-- whose write was refused, the highest fence among those, and how many of these were never given. The path
-- is set amid it, once no name and no text is looked up any more, for triggers alone. Then the places of
-- rows that we have got; of those that were due; and that hold what they should.
WITH given AS MATERIALIZED (
  SELECT {k_typed_as_k}, {embedding} AS embedding, {digest} AS vector_hash, k.fence, k.encode_error, k.place,
         k.encode_error IS NOT NULL AND k.hash_slot = 0 AS is_unread,
         CASE WHEN k.hash_slot > 0
              THEN substring(%(hashes)s::bytea FROM (k.hash_slot - 1) * 16 + 1 FOR 16) END
           AS content_hash
    FROM unnest({key_params}, %(hash_slots)s::int[], %(fences)s::bigint[], %(errors)s::text[]{vectors})
         WITH ORDINALITY AS k ({k}, hash_slot, fence, encode_error{vector}, place)
), claimed AS MATERIALIZED (
  SELECT {d_ks}, freshvec_given.embedding, freshvec_given.vector_hash, freshvec_given.fence,
         freshvec_given.encode_error, freshvec_given.place, freshvec_given.content_hash, d.held,
         freshvec_given.is_unread OR d.freshvec_hash IS NOT DISTINCT FROM freshvec_given.content_hash AS fits,
         coalesce(t.fence < freshvec_given.fence, true) AS admits, t.fence AS its_fence,
         coalesce({t_is_embedded} AND t.fingerprint = %(fingerprint)s, false) AS embedded,
         t.encode_error IS NOT NULL AS failed,
         t.content_hash IS DISTINCT FROM freshvec_given.content_hash
           OR t.fingerprint <> %(fingerprint)s AS differs
    FROM given AS freshvec_given
   CROSS JOIN LATERAL (
     SELECT {d_keys_as_k}, d.held, {hash} AS freshvec_hash
       FROM (SELECT {keys}, {digest_of_own} AS held,
                    CASE WHEN NOT freshvec_given.is_unread THEN {text} END AS freshvec_text
               FROM {source} WHERE {own_is_given} FOR NO KEY UPDATE SKIP LOCKED) AS d) AS d
    LEFT JOIN {target} AS t ON {t_is_d}
), path AS MATERIALIZED (
  SELECT set_config('search_path', %(path)s, true) FROM (SELECT count(*) FROM claimed) AS all_claimed
), due AS MATERIALIZED (
  SELECT claimed.* FROM claimed CROSS JOIN path WHERE fits AND admits
), updated AS (
  UPDATE {source} AS d SET {vector_column} = g.embedding FROM due AS g
   WHERE {d_is_g} AND g.vector_hash IS DISTINCT FROM g.held
  RETURNING {g_keys}, g.vector_hash, g.fence, g.encode_error, g.place, g.content_hash, g.embedded, g.failed,
            {digest_of_d} AS held
), held AS MATERIALIZED (
  SELECT {once_g} * FROM (
    SELECT * FROM updated
     UNION ALL
    SELECT {g_keys}, g.vector_hash, g.fence, g.encode_error, g.place, g.content_hash, g.embedded, g.failed,
           g.held
      FROM due AS g) AS g
   WHERE g.vector_hash IS NOT DISTINCT FROM g.held
), written AS (
  INSERT INTO {target} AS t ({keys}, vector_hash, content_hash, fingerprint, fence, encode_error)
  SELECT {g_keys}, g.vector_hash, g.content_hash, %(fingerprint)s, g.fence, g.encode_error FROM held AS g
      ON CONFLICT ({keys}) DO UPDATE
     SET vector_hash = excluded.vector_hash, content_hash = excluded.content_hash,
         fingerprint = excluded.fingerprint, fence = excluded.fence, encode_error = excluded.encode_error,
         embedded_at = excluded.embedded_at
   WHERE t.fence < excluded.fence
  RETURNING {t_is_embedded} AS embedded, t.encode_error IS NOT NULL AS failed
)
SELECT (SELECT count(*) FILTER (WHERE embedded) FROM written)
       - (SELECT count(*) FILTER (WHERE embedded) FROM held),
       (SELECT count(*) FILTER (WHERE failed) FROM written)
       - (SELECT count(*) FILTER (WHERE failed) FROM held),
       (SELECT array_agg(place::int) FROM claimed WHERE fits AND NOT admits AND differs),
       (SELECT max(its_fence) FROM claimed WHERE fits AND NOT admits AND differs),
       (SELECT count(*) FROM claimed
         WHERE fits AND NOT admits AND differs AND its_fence > (SELECT last_value FROM freshvec.fence)),
       (SELECT array_agg(place::int) FROM claimed),
       (SELECT array_agg(place::int) FROM due),
       (SELECT array_agg(place::int) FROM held)

-- fail: rows that the table does not take a vector of, with the reason; the source is not written
WITH given AS MATERIALIZED (
  SELECT {once_k} {d_keys_as_k}, k.fence, k.encode_error,
         CASE WHEN k.hash_slot > 0
              THEN substring(%(hashes)s::bytea FROM (k.hash_slot - 1) * 16 + 1 FOR 16) END
           AS content_hash
    FROM unnest({key_params}, %(hash_slots)s::int[], %(fences)s::bigint[], %(errors)s::text[])
         WITH ORDINALITY AS k ({k}, hash_slot, fence, encode_error, place)
    JOIN {source} AS d ON {d_is_k}
), before AS MATERIALIZED (
  SELECT {t_is_embedded} AND t.fingerprint = %(fingerprint)s AS embedded, t.encode_error IS NOT NULL AS failed
    FROM given AS g JOIN {target} AS t ON {t_is_g} WHERE t.fence < g.fence
), written AS (
  INSERT INTO {target} AS t ({keys}, content_hash, fingerprint, fence, encode_error)
  SELECT {g_keys}, g.content_hash, %(fingerprint)s, g.fence, g.encode_error FROM given AS g
      ON CONFLICT ({keys}) DO UPDATE
     SET vector_hash = NULL, content_hash = excluded.content_hash, fingerprint = excluded.fingerprint,
         fence = excluded.fence, encode_error = excluded.encode_error, embedded_at = excluded.embedded_at
   WHERE t.fence < excluded.fence
  RETURNING true
)
SELECT -(SELECT count(*) FILTER (WHERE embedded) FROM before),
       (SELECT count(*) FROM written) - (SELECT count(*) FILTER (WHERE failed) FROM before)

-- empty: take the vectors out of rows of the source that have no text any more, and nobody else has. Gives
-- the places of rows that we have got, and of those among them that have no text now
WITH given AS MATERIALIZED (
  SELECT {k_typed_as_k}, k.place FROM {given_keys}
), claimed AS MATERIALIZED (
  SELECT {d_ks}, freshvec_given.place, d.holds, d.freshvec_text IS NULL AS is_empty
    FROM given AS freshvec_given
   CROSS JOIN LATERAL (
     SELECT {own_keys_as_k}, {vector_column} IS NOT NULL AS holds, {text} AS freshvec_text
       FROM {source} WHERE {own_is_given} FOR NO KEY UPDATE SKIP LOCKED) AS d
), path AS MATERIALIZED (
  SELECT set_config('search_path', %(path)s, true) FROM (SELECT count(*) FROM claimed) AS all_claimed
), emptied AS (
  UPDATE {source} AS d SET {vector_column} = NULL FROM claimed AS g CROSS JOIN path
   WHERE {d_is_g} AND g.holds AND g.is_empty
)
SELECT (SELECT array_agg(place::int) FROM claimed), (SELECT array_agg(place::int) FROM claimed WHERE is_empty)

-- there: places of keys that the source has
SELECT k.place::int FROM {given_keys} WHERE EXISTS (SELECT FROM {source} AS d WHERE {d_is_k})
