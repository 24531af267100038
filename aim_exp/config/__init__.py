"""From what was typed to a run: schema, checks, jobs of a sweep, code from outside."""
