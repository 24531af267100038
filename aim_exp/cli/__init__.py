"""The command line: commands, help, explanations of errors, what a plan prints, callbacks."""
