"""From declared to applied: plan, apply, remove, migrate."""
