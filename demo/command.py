"""Runs the project's own commands as a user types them."""

import shlex
import time

from rho_score.cli import main


def rho_score(command: str, *, done: int = 0) -> float:
    """Runs `rho-score command` in this process; returns its seconds.

    done: the exit code that is expected. Another one raises SystemExit.
    """
    print(f"\n$ rho-score {command}", flush=True)
    started = time.monotonic()
    if (code := main(shlex.split(command))) != done:
        raise SystemExit(f"rho-score {command.split()[0]} ended with {code}, not {done}")
    return time.monotonic() - started
