-- allow_views: our sessions read none (db.py), but those of this transaction are our own
SELECT set_config(name, '', true) FROM pg_catalog.pg_settings WHERE name = 'restrict_nonsystem_relation_kind'

-- syncs: how fresh each is
SELECT sync, coverage, backlog, backfill_done, rescan_waiting, lag_p99_ms, trouble, paused
  FROM freshvec.sync_status()
