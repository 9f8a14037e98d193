"""Other tools read both stores, and see the same numbers as we do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

from rho_score.config import SelectConfig
from rho_score.selecting.job import select
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection


def _with_duckdb(pattern: str, column: str) -> tuple[int, float]:
    query = f"select count(x), sum(x::double) from (select unnest({column}) as x from read_parquet('{pattern}'))"
    ((n, total),) = duckdb.connect().execute(query).fetchall()
    return int(n), float(total)


def _with_polars(pattern: str, column: str) -> tuple[int, float]:
    values = pl.scan_parquet(pattern).select(pl.col(column).explode().cast(pl.Float64)).collect()[column].drop_nulls()
    return len(values), float(values.sum())


def _with_pandas(pattern: str, column: str) -> tuple[int, float]:
    frame = pd.read_parquet(str(Path(pattern).parent), columns=[column])
    values = np.concatenate([np.asarray(row, np.float64) for row in frame[column]])
    return len(values), float(values.sum())


def _with_datasets(pattern: str, column: str) -> tuple[int, float]:
    import datasets

    rows = datasets.load_dataset("parquet", data_files=pattern, split="train")
    values = [float(x) for row in rows[column] for x in row]
    return len(values), float(np.sum(values))


@pytest.fixture(scope="module")
def selection(scores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("readers") / "selection"
    select(SelectConfig(output=str(output), ref=str(scores["ref"]), base=str(scores["base"]), ratio=0.6))
    return output


@pytest.mark.parametrize("read", [_with_duckdb, _with_polars, _with_pandas, _with_datasets])
def test_other_readers(
    read: Callable[[str, str], tuple[int, float]], scores: dict[str, Path], selection: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    n, total = read(f"{scores['ref']}/data/*.parquet", "loss")
    summary: dict[str, Any] = ScoreSet.open(str(scores["ref"])).summary
    assert n == summary["losses"]
    assert total == pytest.approx(summary["total_nats"], rel=1e-9)
    n, kept = read(f"{selection}/data/*.parquet", "mask")
    groups = Selection.open(str(selection)).summary["groups"]
    assert n == sum(row["tokens"] for row in groups)
    assert kept == sum(row["tokens_kept"] for row in groups)
