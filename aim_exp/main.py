"""`python run.py` and `aim-exp`: help is printed before all that a run needs is imported."""

import sys

from aim_exp.cli.help import help_page


def main() -> None:
    """The page that `--help` asks for, or what the command line says."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_page(), end="")
        return
    from aim_exp import app

    app.main()
