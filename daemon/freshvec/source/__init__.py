"""The application's table: resolved, and read."""
