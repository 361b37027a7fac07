"""How fast it is here, beside what the hardware and others can do."""
