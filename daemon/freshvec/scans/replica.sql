-- fence: of the moment up to which this server has replayed. The log tells of a sequence 32 numbers ahead, so
-- that many may not have been drawn by then.
SELECT last_value - 33 FROM freshvec.fence
