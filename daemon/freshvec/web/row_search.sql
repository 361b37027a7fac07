-- bound: somebody waits, but a search without an index must not keep the server busy for ever
SELECT set_config('statement_timeout', '15s', false), set_config('lock_timeout', '1s', false)
