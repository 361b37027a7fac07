-- allow_views: our sessions read none (db.py), but this one is our own
SELECT set_config(name, '', false) FROM pg_catalog.pg_settings WHERE name = 'restrict_nonsystem_relation_kind'

-- all: the status view
SELECT * FROM freshvec.status

-- failures: the latest rows of every sync whose text could not be encoded
SELECT sync, key, error FROM freshvec.failures(%(most)s)
