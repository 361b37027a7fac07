-- all: the status view
SELECT * FROM freshvec.status

-- failures: the latest rows of every sync whose text could not be encoded
SELECT sync, key, error FROM freshvec.failures(%(most)s)
