"""Run experiments: `python run.py --help` says how."""

from aim_exp.main import main

if __name__ == "__main__":
    main()
