-- listen: be told when a queue of this database gets an entry
LISTEN freshvec

-- stay: the listener must not be cut off for being quiet
SET idle_session_timeout = 0
