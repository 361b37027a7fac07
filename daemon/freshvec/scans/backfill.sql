-- page: the next rows in key order, with the text of those that are not fresh, as long as the texts before a
-- row leave room for it
SELECT {d_key_texts}, d.freshvec_hash, d.freshvec_unchanged, d.freshvec_read
  FROM (SELECT d.*, sum(length(d.freshvec_read))
                      OVER (ORDER BY {d_keys} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                      AS freshvec_characters
          FROM (SELECT {d_keys}, d.freshvec_hash, f.unchanged AS freshvec_unchanged,
                       CASE WHEN NOT f.unchanged
                            THEN left(d.freshvec_text, {max_characters}) END AS freshvec_read
                  FROM (SELECT d.*, {hash} AS freshvec_hash
                          FROM (SELECT {keys}, {text} AS freshvec_text FROM {source} {beyond}
                                 ORDER BY {keys} LIMIT %(limit)s) AS d
                         OFFSET 0) AS d
                  LEFT JOIN {target} AS t ON {d_is_t}
                 CROSS JOIN LATERAL (SELECT {unchanged} AS unchanged) AS f
                 ORDER BY {d_keys}
                OFFSET 0) AS d) AS d
 WHERE {is_trusted} AND coalesce(d.freshvec_characters, 0) < %(most_characters)s
 ORDER BY {d_keys}

-- keys: the keys of that page, where a row's text cannot be read
SELECT {d_key_texts} FROM {source} AS d {beyond} ORDER BY {d_keys} LIMIT %(limit)s

-- fence: the order of rows about to be read
SELECT nextval('freshvec.fence')

-- state: how far the walk is, whether it is done, whether it only proves, seconds since all was proven fresh,
-- whether what comes after is in ranges already, whether there are any, and the fence when it began
SELECT backfill_after, backfill_done, walk_proves, extract(epoch FROM now() - proven_at)::float8, walk_is_cut,
       EXISTS (SELECT FROM freshvec.range AS r WHERE r.sync = s.name), walk_fence
  FROM freshvec.sync AS s WHERE name = {sync_name}

-- restart: walk the whole table again
UPDATE freshvec.sync
   SET backfill_after = NULL, backfill_done = false, walk_proves = %(proves)s, walk_rows = 0, walk_found = 0,
       walk_is_cut = false, walk_started_at = now(), walk_fence = (SELECT last_value FROM freshvec.fence)
 WHERE name = {sync_name}
RETURNING walk_fence

-- discard_ranges: of a walk that was given up
DELETE FROM freshvec.range WHERE sync = {sync_name}

-- answer_rescans: these requests are answered by the walk that now begins; one that an open transaction
-- relies on stays, since this walk may pass the rows of that transaction before it commits
DELETE FROM freshvec.rescan
 WHERE id IN (SELECT id FROM freshvec.rescan WHERE id = ANY (%(ids)s::uuid[]) FOR UPDATE SKIP LOCKED)

-- checkpoint: every row up to this key is written
UPDATE freshvec.sync
   SET backfill_after = %(after)s, walk_rows = walk_rows + %(rows)s, walk_found = walk_found + %(found)s
 WHERE name = {sync_name}

-- finish: every row is written, of every range; while the walk ran, triggers noted what changed behind it
UPDATE freshvec.sync
   SET backfill_done = true, walk_proves = false, backfill_after = NULL, walk_is_cut = false,
       rows_walked = walk_rows,
       proven_at = walk_started_at,
       proven_found = CASE WHEN proven_at IS NULL THEN 0 ELSE walk_found + %(found)s END,
       proven_vectors = %(vectors)s
 WHERE name = {sync_name} AND NOT EXISTS (SELECT FROM freshvec.range AS r WHERE r.sync = {sync_name})
