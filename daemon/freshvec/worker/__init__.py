"""The process: syncs owned, run, supervised."""
