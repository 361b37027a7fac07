-- bound: who watches waits for no lock, and not for long
SELECT set_config('statement_timeout', '5s', false), set_config('lock_timeout', '1s', false)
