"""The command line: parse the arguments into a configuration, make one call, print what came out."""

from rho_score.cli.entry import main, run, run_job

__all__ = ["main", "run", "run_job"]
