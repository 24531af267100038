"""One run: its recipe, its plan, the loop that carries it out, and its record."""
