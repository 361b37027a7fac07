"""Whatever goes through a whole table page by page: backfill, verify, orphans."""
