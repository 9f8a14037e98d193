"""Score sets and selections that several tests read; each is made once."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rho_score.config import ScoreConfig
from rho_score.scoring.job import ScoreSummary, score
from rho_score.stores.signs import RUNS

OPTIONS: dict[str, Any] = {
    "id_column": "id", "group_column": "source", "context": 32, "overlap": 8, "batch_tokens": 128, "cpus_per_worker": 1,
    "unit_bytes": 2000, "gpus_per_worker": 0, "compile": False,
    "dtype": "float32",
}  # fmt: skip


def score_into(corpus: Path, output: Path, model: Path, **changes: Any) -> ScoreSummary:
    """One scoring run with the tests' options."""
    return score(ScoreConfig(input=str(corpus), output=str(output), model=str(model), **(OPTIONS | changes)))


def digests(store: Path) -> dict[str, str]:
    """SHA-256 of every file of a store, by its name, without the signs of life."""
    files = sorted(path for path in store.rglob("*") if path.is_file() and path.parent.name != RUNS)
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def scores(
    ray_cluster: str,
    corpus: Path,
    make_model: Callable[[int], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """The corpus scored by two models: "ref" and "base"."""
    folder = tmp_path_factory.mktemp("scores")
    for name, seed in (("ref", 1), ("base", 2)):
        score_into(corpus, folder / name, make_model(seed))
    return {name: folder / name for name in ("ref", "base")}
