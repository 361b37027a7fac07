"""Where vectors lie, and how they are written and searched."""
