-- read_rows: place, key, hash and text of the given keys; the text of a row that is already fresh stays where
-- it is
SELECT {d_key_texts}, d.freshvec_hash, f.unchanged,
       CASE WHEN NOT f.unchanged
            THEN left(d.freshvec_text, coalesce(%(characters)s::int, length(d.freshvec_text))) END,
       d.place
  FROM (SELECT d.*, {hash} AS freshvec_hash
          FROM (SELECT {d_keys}, k.place::int AS place, d.freshvec_text
                  FROM {given_keys}
                  JOIN (SELECT {keys}, {text} AS freshvec_text FROM {source}) AS d ON {d_is_k}
                -- OFFSET 0 keeps the planner from rendering and hashing the text once per mention
                OFFSET 0) AS d
         OFFSET 0) AS d
  LEFT JOIN {target} AS t ON {d_is_t}
 CROSS JOIN LATERAL (SELECT {unchanged} AS unchanged) AS f
