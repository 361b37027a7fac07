-- rows: of these keys the rows that have a text: its hash, its beginning, why their vector cannot be taken
-- over, or that vector. `o` is what the old table has of a row.
SELECT {d_key_texts}, d.freshvec_hash,
       left(d.freshvec_text, coalesce(%(characters)s::int, length(d.freshvec_text))), r.refusal,
       CASE WHEN r.refusal IS NULL THEN o.numbers END
  FROM (SELECT d.*, {hash} AS freshvec_hash
          FROM (SELECT {d_keys}, d.freshvec_text, d.freshvec_changed_at
                  FROM {given_keys}
                  JOIN (SELECT {keys}, {text} AS freshvec_text, {changed_at} AS freshvec_changed_at
                          FROM {source}) AS d ON {d_is_k}
                 WHERE {wanted}
                OFFSET 0) AS d
         OFFSET 0) AS d
 CROSS JOIN LATERAL (SELECT count(*) AS parts, (array_agg(array_send({numbers})))[1] AS numbers,
                            (array_agg({part}))[1] AS text, (array_agg({made_at}))[1] AS made_at
                       FROM {origin} AS o WHERE {o_is_d}) AS o
 CROSS JOIN LATERAL (
   SELECT CASE WHEN o.numbers IS NULL AND o.parts < 2 THEN 'missing'
               WHEN o.parts > 1 THEN 'parts'
               WHEN btrim(o.text, {blanks}) <> btrim(d.freshvec_text, {blanks}) THEN 'text'
               WHEN d.freshvec_changed_at > o.made_at THEN 'date' END AS refusal) AS r
 WHERE d.freshvec_hash IS NOT NULL

-- untouched: rows that nothing of ours has written yet, and of which no change is noted since the triggers
-- are there. An edit that came before the old way made a new vector would else be taken for embedded.
{is_trusted} AND NOT EXISTS (SELECT FROM {target} AS t WHERE {d_is_t})
  AND NOT EXISTS (SELECT FROM {queue} AS q WHERE {d_is_q})
  AND NOT EXISTS (SELECT FROM freshvec.rescan WHERE sync = {sync_name})

-- allow_hashing: the queue may hold many changes, and is not ordered by key
SET LOCAL enable_hashjoin = on
