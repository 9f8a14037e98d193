"""`rho-score` as a module that is run: the command's own entry point."""

from rho_score.cli import run

if __name__ == "__main__":
    run()
