"""The application's table: resolved, read, and locked no longer than it bears."""
