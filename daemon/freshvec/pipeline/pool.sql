-- plan_for_any_values: once, not for each execution's values; all of ours are found by key
SET plan_cache_mode = force_generic_plan

-- forget_plans: make them anew, for tables as large as they are now
DISCARD PLANS

-- hurry: those who share a sync wait for the transactions of one that was stopped
SELECT set_config('idle_in_transaction_session_timeout', '2500ms', false)
