"""Runs a function on two ranks of a gloo group, in two new processes."""

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[3]


def on_two_ranks(work: Callable[[int], Any], n_ranks: int = 2) -> list[Any]:
    """What `work(rank)` returned on each rank. It must be a function of a module."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with TemporaryDirectory() as folder:
        started = []
        for rank in range(n_ranks):
            about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n_ranks, "LOCAL_WORLD_SIZE": n_ranks}
            environment = os.environ | {name: str(value) for name, value in about.items()}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-m", __name__, work.__module__, work.__name__, f"{folder}/{rank}"]
            started.append(subprocess.Popen(command, env=environment, cwd=ROOT))
        codes = [process.wait(timeout=300) for process in started]
        assert codes == [0] * n_ranks, codes
        return [pickle.loads(Path(f"{folder}/{rank}").read_bytes()) for rank in range(n_ranks)]


if __name__ == "__main__":
    import importlib

    import torch.distributed as dist

    module, name, target = sys.argv[1:]
    dist.init_process_group("gloo")
    found = getattr(importlib.import_module(module), name)(dist.get_rank())
    Path(target).write_bytes(pickle.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
