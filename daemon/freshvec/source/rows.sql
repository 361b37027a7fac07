-- read_rows: key, hash and text of the given keys, and the place each was given at, as long as the texts
-- before a row leave room for it; the text of a row that is already fresh stays where it is
SELECT {d_key_texts}, d.freshvec_hash, d.freshvec_unchanged, d.freshvec_read, d.freshvec_place::int
  FROM (SELECT d.*, sum(length(d.freshvec_read))
                      OVER (ORDER BY d.freshvec_place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                      AS freshvec_characters
          FROM (SELECT {d_keys}, d.freshvec_hash, f.unchanged AS freshvec_unchanged, d.freshvec_place,
                       CASE WHEN NOT f.unchanged
                            THEN left(d.freshvec_text, coalesce(%(characters)s::int, length(d.freshvec_text)))
                       END AS freshvec_read
                  FROM (SELECT d.*, {hash} AS freshvec_hash
                          FROM (SELECT {d_keys}, k.place AS freshvec_place, d.freshvec_text
                                  FROM {given_keys}
                                  JOIN (SELECT {keys}, {text} AS freshvec_text FROM {source}) AS d ON {d_is_k}
                                -- OFFSET 0 keeps the planner from rendering and hashing it once per mention
                                OFFSET 0) AS d
                         OFFSET 0) AS d
                  LEFT JOIN {target} AS t ON {d_is_t}
                 CROSS JOIN LATERAL (SELECT {unchanged} AS unchanged) AS f
                OFFSET 0) AS d) AS d
 WHERE {is_trusted} AND coalesce(d.freshvec_characters, 0) < %(most_characters)s
 ORDER BY d.freshvec_place
