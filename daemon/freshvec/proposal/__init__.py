"""From a database to a first configuration: what has texts, and how to keep it."""
