-- plan_for_any_values: once, not for each execution's values; all of ours are found by key
SET plan_cache_mode = force_generic_plan

-- forget_plans: make them anew, for tables as large as they are now
DISCARD PLANS
