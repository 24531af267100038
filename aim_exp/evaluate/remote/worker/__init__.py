"""Scripts for the interpreter of another environment, which need nothing of this package."""
