"""How a change is noted and rings: triggers, queue, bell."""
