-- claim_free: a range that was begun by somebody who is gone
UPDATE freshvec.range SET member = %(pid)s
 WHERE sync = {sync_name}
   AND number = (SELECT number FROM freshvec.range WHERE sync = {sync_name} AND member IS NULL
                  ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING number, after, upto

-- frontier: where the next range begins, whether all is handed out, and rows of the table; for one member at
-- a time
SELECT backfill_after, walk_is_cut OR backfill_done, freshvec.estimate_rows(source_oid::regclass)
  FROM freshvec.sync WHERE name = {sync_name} FOR NO KEY UPDATE

-- last_key: of the range that begins there; none where it is the last range
SELECT {d_key_texts} FROM {source} AS d {beyond} ORDER BY {d_keys} OFFSET %(others)s LIMIT 1

-- cut: hand that range out
WITH cut AS (
  INSERT INTO freshvec.range (sync, number, member, after, upto)
  VALUES ({sync_name}, nextval('freshvec.fence'), %(pid)s, %(after)s, %(upto)s)
  RETURNING number
), moved AS (
  UPDATE freshvec.sync SET backfill_after = %(upto)s, walk_is_cut = %(upto)s::text[] IS NULL
   WHERE name = {sync_name}
)
SELECT number FROM cut

-- reached: every row of the range up to this key is written
UPDATE freshvec.range SET after = %(after)s WHERE sync = {sync_name} AND number = %(number)s

-- passed: every row of the range is written
DELETE FROM freshvec.range WHERE sync = {sync_name} AND number = %(number)s

-- count: so many rows of a range were passed
UPDATE freshvec.sync SET walk_rows = walk_rows + %(rows)s, walk_found = walk_found + %(found)s
 WHERE name = {sync_name}

-- count_of_member: the same, by a member
UPDATE freshvec.member SET walk_rows = walk_rows + %(rows)s, walk_found = walk_found + %(found)s
 WHERE sync = {sync_name} AND pid = %(pid)s

-- left: whether the walk has rows that nobody has, and whether others have some
SELECT NOT s.walk_is_cut
       OR EXISTS (SELECT FROM freshvec.range AS r WHERE r.sync = s.name AND r.member IS NULL),
       EXISTS (SELECT FROM freshvec.range AS r WHERE r.sync = s.name AND r.member IS NOT NULL),
       s.backfill_done
  FROM freshvec.sync AS s WHERE s.name = {sync_name}
