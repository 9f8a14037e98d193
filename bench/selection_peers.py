"""The contenders of `bench.selection`, each a command: `python -m bench.selection_peers NAME REF BASE OUT`.

All answer the same question: the score of the last token that is kept, where the 60 % of highest excess loss (base - ref) are kept.
Each prints `{"threshold": nats, "tokens": n}` as its last line. float16 rounding keeps the order, so that a threshold found
in float32 and then rounded is the one of the rounded scores.
"""

import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

RATIO, QUANTILE = 0.6, 0.4
Answer = dict[str, Any]


def rho_score(ref: str, base: str, out: str) -> Answer:
    """`rho-score select --dry-run`: reads, subtracts, counts, prints."""
    return _command(ref, base, out, "--dry-run")


def rho_score_masks(ref: str, base: str, out: str) -> Answer:
    """`rho-score select`: the same, and every token's mask written."""
    return {**_command(ref, base, out), "threshold": _threshold_of(out)}


def _command(ref: str, base: str, out: str, *flags: str) -> Answer:
    """The command; its printed row `all` has documents (empty in a dry run), tokens, kept, share kept and threshold."""
    from rho_score.cli import main

    arguments = ["select", "--ref", ref, "--base", base, out, "--ratio", str(RATIO), *flags]
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as errors:
        try:
            failed = main(arguments)
        except SystemExit as error:  # wrong usage
            failed = int(error.code or 0)
    if failed:
        lines = [line.strip("│╭╰╮╯─ ") for line in (errors.getvalue() or printed.getvalue()).splitlines()]
        raise RuntimeError(" ".join(line for line in lines if line)[-150:])
    (row,) = re.findall(r"^all +.*$", printed.getvalue(), re.MULTILINE)[:1]
    tokens, _, _, threshold = row.replace(",", "").split()[-4:]
    return {"threshold": float(threshold), "decimals": len(threshold.partition(".")[2]), "tokens": int(tokens)}


def _threshold_of(out: str) -> float:
    (row,) = json.loads((Path(out) / "summary.json").read_text())["thresholds"]
    return float(row["threshold"])


def duckdb(ref: str, base: str, out: str) -> Answer:
    """DuckDB on all cores."""
    return _duckdb(ref, base, threads=os.cpu_count() or 1)


def duckdb_two_threads(ref: str, base: str, out: str) -> Answer:
    """DuckDB on two threads."""
    return _duckdb(ref, base, threads=2)


def _duckdb(ref: str, base: str, *, threads: int) -> Answer:
    import duckdb as database

    connection = database.connect()
    connection.execute(f"SET threads = {threads}")
    query = f"""
        SELECT quantile_disc(base - ref, {QUANTILE}), count(*) FROM (
            SELECT unnest(b.loss) AS base, unnest(r.loss) AS ref
            FROM read_parquet('{base}/data/*.parquet') AS b JOIN read_parquet('{ref}/data/*.parquet') AS r USING (doc_id)
        )"""
    row = connection.execute(query).fetchone()
    assert row is not None
    return {"threshold": row[0], "tokens": row[1]}


def polars(ref: str, base: str, out: str) -> Answer:
    """Polars' default engine."""
    return _polars(ref, base, "in-memory")


def polars_streaming(ref: str, base: str, out: str) -> Answer:
    """Polars' streaming engine."""
    return _polars(ref, base, "streaming")


def _polars(ref: str, base: str, engine: Any) -> Answer:
    import polars as pl

    left = pl.scan_parquet(f"{base}/data/*.parquet").select("doc_id", pl.col("loss").alias("base"))
    right = pl.scan_parquet(f"{ref}/data/*.parquet").select("doc_id", pl.col("loss").alias("ref"))
    tokens = left.join(right, on="doc_id").select("base", "ref").explode("base", "ref").drop_nulls()
    excess = pl.col("base") - pl.col("ref")
    # "higher": the rank that keeps 60 % exactly; "lower" is one rank off where 0.4 n is whole
    answer = tokens.select(excess.quantile(QUANTILE, interpolation="higher").alias("q"), pl.len().alias("n"))
    row = answer.collect(engine=engine).row(0)
    return {"threshold": row[0], "tokens": row[1]}


def numpy_partition(ref: str, base: str, out: str) -> Answer:
    """pyarrow reads file after file, numpy subtracts; np.partition of all in memory."""
    excess = np.concatenate([b - r for r, b in _pairs(ref, base)])
    at = len(excess) - round(RATIO * len(excess))
    excess.partition(at)
    return {"threshold": float(excess[at]), "tokens": len(excess)}


def sorted_list(ref: str, base: str, out: str) -> Answer:
    """A Python list of floats, sorted."""
    excess: list[float] = []
    for r, b in _pairs(ref, base):
        excess.extend((b - r).tolist())
    excess.sort()
    return {"threshold": excess[len(excess) - round(RATIO * len(excess))], "tokens": len(excess)}


def _pairs(ref: str, base: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Losses of both models, file by file; the files must hold the same documents."""
    for path in sorted((Path(ref) / "data").glob("*.parquet")):
        yield _losses(path, Path(base) / "data" / path.name)


def _losses(ref: Path, base: Path) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow.parquet as pq

    tables = [pq.read_table(path, columns=["doc_id", "loss"]) for path in (ref, base)]
    if not tables[0]["doc_id"].equals(tables[1]["doc_id"]):
        raise ValueError(f"{ref} and {base} hold other documents")
    found = [table["loss"].combine_chunks().flatten().drop_null().to_numpy() for table in tables]
    return found[0], found[1]


def ray_data(ref: str, base: str, out: str) -> Answer:
    """Ray Data's own Quantile over a row a token; files are paired by name in a map task."""
    import ray.data
    from ray.data.aggregate import Count, Quantile

    _start_ray()
    names = sorted(path.name for path in (Path(ref) / "data").glob("*.parquet"))

    def tokens(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        pairs = [_losses(Path(ref) / "data" / name, Path(base) / "data" / name) for name in batch["item"].tolist()]
        return {"excess": np.concatenate([b - r for r, b in pairs])}

    rows = ray.data.from_items(names).map_batches(tokens, batch_size=1)
    return _ray_answer(rows.aggregate(Quantile(on="excess", q=QUANTILE), Count()))


def ray_data_join(ref: str, base: str, out: str) -> Answer:
    """Ray Data's join of both folders by document, its flat_map to a row a token, its Quantile."""
    import ray.data
    from ray.data.aggregate import Count, Quantile

    _start_ray()
    left, right = (
        ray.data.read_parquet(f"{url}/data", columns=["doc_id", "loss"]).rename_columns({"loss": name})
        for url, name in ((base, "base"), (ref, "ref"))
    )
    joined = left.join(right, join_type="inner", num_partitions=4, on=("doc_id",))
    rows = joined.flat_map(
        lambda row: [{"excess": float(b) - float(r)} for b, r in zip(row["base"], row["ref"], strict=True)]
    )
    return _ray_answer(rows.aggregate(Quantile(on="excess", q=QUANTILE), Count()))


def _start_ray() -> None:
    import ray
    from ray.data import DataContext

    ray.init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, logging_level=logging.WARNING)
    DataContext.get_current().enable_progress_bars = False


def _ray_answer(found: Any) -> Answer:
    return {"threshold": float(found["quantile(excess)"]), "tokens": int(found["count()"])}


def running_cluster() -> None:
    """A Ray cluster of two CPUs until standard input ends; prints its address."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.WARNING)
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
    ray.shutdown()


PEERS: dict[str, Callable[[str, str, str], Answer]] = {
    f.__name__: f
    for f in (
        rho_score, rho_score_masks, duckdb, duckdb_two_threads, polars, polars_streaming, numpy_partition, sorted_list,
        ray_data, ray_data_join,
    )
}  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1] == "cluster":
        running_cluster()
    else:
        print(json.dumps(PEERS[sys.argv[1]](*sys.argv[2:5])), flush=True)
