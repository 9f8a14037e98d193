"""`python -m rho_score` is the command `rho-score`."""

from rho_score.cli import run

if __name__ == "__main__":
    run()
