-- page: the next rows in key order, with the text of those that are not fresh
SELECT {d_key_texts}, d.freshvec_hash, f.unchanged, CASE WHEN NOT f.unchanged THEN left(d.freshvec_text, {max_characters}) END
  FROM (SELECT d.*, {hash} AS freshvec_hash
          FROM (SELECT {keys}, {text} AS freshvec_text FROM {source} {beyond} ORDER BY {keys} LIMIT %(limit)s) AS d
         OFFSET 0) AS d
  LEFT JOIN {target} AS t ON {d_is_t}
 CROSS JOIN LATERAL (SELECT {unchanged} AS unchanged) AS f
 ORDER BY {d_keys}

-- fence: the fence of rows about to be read
SELECT nextval('freshvec.fence')

-- state: how far the walk is, and whether it is done
SELECT backfill_after, backfill_done FROM freshvec.sync WHERE name = {sync_name}

-- restart: walk the whole table again
UPDATE freshvec.sync SET backfill_after = NULL, backfill_done = false WHERE name = {sync_name}

-- answer_rescans: these requests are answered by the walk that now begins
DELETE FROM freshvec.rescan WHERE id = ANY (%(ids)s)

-- checkpoint: every row up to this key is written
UPDATE freshvec.sync SET backfill_after = %(after)s WHERE name = {sync_name}

-- finish: every row is written
UPDATE freshvec.sync SET backfill_done = true, backfill_after = NULL WHERE name = {sync_name}
