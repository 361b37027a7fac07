-- faults: places of keys whose row is not fresh, or gone and still embedded, and of which no entry of the
-- queue tells: all of it by one snapshot, so that a change which is noted or written meanwhile is never taken
-- for a fault
WITH given (place, {k}) AS MATERIALIZED (
  SELECT k.place::int, {k_typed} FROM {given_keys}
), now AS MATERIALIZED (
  SELECT n.*, {hash} AS freshvec_hash
    FROM (SELECT g.*, d.freshvec_text, d.freshvec_is_there, t.fence, t.content_hash, t.fingerprint,
                 t.encode_error,
                 {t_has_its_vectors} AS is_embedded, {d_keeps_a_vector} AS keeps_a_vector
            FROM given AS g
            LEFT JOIN (SELECT {keys}, {text} AS freshvec_text, true AS freshvec_is_there
                         FROM {source}) AS d ON {d_is_g}
            LEFT JOIN {target} AS t ON {t_is_g}
          OFFSET 0) AS n
)
SELECT g.place FROM now AS g
 WHERE {is_trusted}
   AND CASE WHEN g.freshvec_is_there IS NULL THEN g.fence IS NOT NULL
            WHEN g.freshvec_hash IS NULL THEN coalesce(g.is_embedded, false) OR g.keeps_a_vector
            ELSE NOT coalesce(g.content_hash = g.freshvec_hash AND g.fingerprint = %(fingerprint)s
                              AND (g.is_embedded OR g.encode_error IS NOT NULL AND NOT %(failed)s), false) END
   AND NOT EXISTS (SELECT FROM {queue} AS q WHERE {q_is_g})

-- not_queued: places of keys of which no entry of the queue tells
WITH given (place, {k}) AS MATERIALIZED (
  SELECT k.place::int, {k_typed} FROM {given_keys}
)
SELECT g.place FROM given AS g WHERE NOT EXISTS (SELECT FROM {queue} AS q WHERE {q_is_g})

-- many_at_once: the queue has no index by key
SELECT set_config('enable_hashjoin', 'on', true)
