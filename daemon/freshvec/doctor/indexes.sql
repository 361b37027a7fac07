-- all: every sync, how many vectors it has, why its index is not there, and the indexes there are
SELECT s.name, s.rows_embedded, s.index_trouble, i.name, i.bytes, i.is_valid, i.is_ours, i.phase, i.share
  FROM freshvec.sync AS s LEFT JOIN freshvec.sync_indexes() AS i ON i.sync = s.name
 ORDER BY s.name, i.name
