"""The command line: parses the arguments, runs one command and prints its result."""

from rho_score.cli.entry import main, run, run_job

__all__ = ["main", "run", "run_job"]
