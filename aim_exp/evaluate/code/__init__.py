"""Running the code that models wrote."""
