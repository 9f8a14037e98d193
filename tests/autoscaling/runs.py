"""Jobs on a cluster that grows, and what they published."""

import hashlib
from pathlib import Path

from tests.chaos.runs import command


def score_command(root: Path, name: str, workers: str, *more: str) -> list[str]:
    """The arguments that score the corpus of `root` into `root/name`."""
    arguments = command("score", root, root / name)
    arguments[arguments.index("--workers") + 1] = workers
    return [*arguments, *more]


def train_command(root: Path, name: str) -> list[str]:
    """The arguments that train two workers on the selection `root/peace-select`."""
    where = [f"{root}/model", f"{root}/{name}", "--selection", f"{root}/peace-select", "--cache", f"{root}/blocks"]
    sizes = ["--steps", "30", "--block-size", "32", "--batch-tokens", "128", "--micro-batch", "2", "--save-every", "2"]
    pool = ["--workers", "2", "--cpus-per-worker", "1", "--gpus-per-worker", "0", "--max-failures", "20"]
    return ["train", *where, *sizes, *pool, "--dtype", "float32"]


def published(store: Path) -> dict[str, str]:
    """SHA-256 of every file that a store publishes, by its name.

    A process that is killed leaves temporary files and notes of attempts, which begin with a dot or lie in `attempts`.
    Of a training run, it is the model's files, because its log has times.
    """
    files = sorted(path.relative_to(store) for path in store.rglob("*") if path.is_file())
    kept = [
        path for path in files if path.parts[0] != "attempts" and not any(part.startswith(".") for part in path.parts)
    ]
    if (store / "model").is_dir():
        kept = [path for path in kept if path.parts[0] == "model"]
    return {str(path): hashlib.sha256((store / path).read_bytes()).hexdigest() for path in kept}
