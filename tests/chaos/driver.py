"""What a driver's process does: the command line, from its arguments to its exit code. Imported once, forked for each."""

import os
import sys

import ray.data  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import rho_score.exporting.job
import rho_score.scoring.job
import rho_score.selecting.job  # noqa: F401
from rho_score.cli import main


def drive(arguments: list[str], address: str, log: str) -> None:
    """Run `rho-score ARGUMENTS` in the cluster at `address`, both streams into the file `log`."""
    os.setsid()  # a kill must not reach the tests
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ["RAY_ADDRESS"] = address
    print(f"$ rho-score {' '.join(arguments)}", flush=True)
    sys.exit(main(arguments))
