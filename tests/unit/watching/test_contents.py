"""What is published of every kind of store, against counts of the stores' own making."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rho_score.config import (
    DedupConfig,
    DynamicsConfig,
    ExportConfig,
    ImportConfig,
    PriorConfig,
    SelectConfig,
)
from rho_score.corpus.plan import Plan
from rho_score.corpus.units import Unit
from rho_score.deduplicating.job import dedup
from rho_score.deriving.import_scores import import_scores
from rho_score.deriving.prior import prior
from rho_score.errors import InputError
from rho_score.exporting.job import export
from rho_score.files.folder import Folder
from rho_score.files.json import dump_json
from rho_score.files.parquet import parquet_bytes
from rho_score.selecting.dynamics import dynamics
from rho_score.selecting.job import select
from rho_score.stores.layout import data_name, quarantine_name
from rho_score.stores.manifest import new_manifest, read_manifest
from rho_score.stores.schema import QUARANTINE
from rho_score.stores.training_run import LOG_SCHEMA
from rho_score.watching import contents as module
from rho_score.watching.contents import Contents, contents_of
from rho_score.watching.reasons import by_reason
from tests.conftest import make_tokenizer, write_corpus
from tests.stores import cut, random_documents, write_scores

N_DOCUMENTS, N_UNITS = 40, 10
DOCUMENTS = [ref for ref, _ in random_documents(N_DOCUMENTS, seed=1)]
TOKENS = sum(len(document.ids) for document in DOCUMENTS)


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """A finished score set of ten units of four documents."""
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return write_scores(
        tmp_path / "ref", [cut(DOCUMENTS, [4] * N_UNITS)], tokenizer=tmp_path / "tokenizer", tokenizer_sha256="t"
    )


def _contents(store: Path) -> Contents:
    folder = Folder(str(store))
    return contents_of(folder, read_manifest(folder))


def _remove(store: Path, under: str, n: int) -> None:
    """Removes the last `n` files of a folder, as if they were not published yet."""
    for path in sorted((store / under).iterdir())[-n:]:
        path.unlink()


def _quarantine(store: Path, unit: str, reasons: list[str]) -> None:
    rows = pa.table([[f"q{i}" for i in range(len(reasons))], reasons], schema=QUARANTINE)
    Folder(str(store)).publish(quarantine_name(unit), parquet_bytes(rows, QUARANTINE))


def _units(store: Path) -> list[str]:
    names: list[str] = pq.read_table(store / "plan.parquet")["unit"].to_pylist()
    return names


def test_a_finished_score_set(scores: Path) -> None:
    found = _contents(scores)
    assert (found.finished, found.done, found.of, found.unit, found.exact) == (True, N_UNITS, N_UNITS, "units", True)
    assert found.counts["documents"] == found.counts["scored"] == N_DOCUMENTS
    assert found.counts["tokens"] == TOKENS
    assert found.counts["text_bytes"] == N_UNITS  # one each, see `write_scores`


def test_an_unfinished_score_set_counts_what_is_published(scores: Path) -> None:
    (scores / "_SUCCESS.json").unlink()
    for unit in _units(scores)[7:]:
        (scores / data_name(unit)).unlink()
    (scores / "data" / "stranger.parquet").write_bytes(b"of no unit of the plan")
    found = _contents(scores)
    assert (found.finished, found.done, found.of, found.exact) == (False, 7, N_UNITS, True)
    assert found.counts["documents"] == 28
    assert found.counts["tokens"] == sum(len(document.ids) for document in DOCUMENTS[:28])
    assert found.counts["text_bytes"] == 7


def test_a_score_set_that_is_just_begun(scores: Path) -> None:
    for name in ("_SUCCESS.json", "plan.parquet"):
        (scores / name).unlink()
    _remove(scores, "data", N_UNITS)
    found = _contents(scores)
    assert (found.finished, found.done, found.of) == (False, 0, None)
    assert set(found.counts.values()) == {0}


def test_a_damaged_unit_is_left_out_and_the_rest_told_about(scores: Path) -> None:
    (scores / "_SUCCESS.json").unlink()
    (scores / data_name(_units(scores)[0])).write_bytes(b"damaged")
    found = _contents(scores)
    assert (found.done, found.exact) == (N_UNITS, False)
    there = sum(len(document.ids) for document in DOCUMENTS[4:])
    assert found.counts["tokens"] == round(there * N_UNITS / (N_UNITS - 1))


def test_quarantine_is_told_by_reason(scores: Path) -> None:
    first, second, *_ = _units(scores)
    _quarantine(scores, first, ["line 3: not JSON", "text is null", "it has 5 tokens"])
    _quarantine(scores, second, ["line 17: not JSON", "text is null", "line 18: not JSON"])
    found = _contents(scores)
    assert list(found.reasons.items()) == [("line N: not JSON", 3), ("text is null", 2), ("it has 5 tokens", 1)]
    assert found.reasons_exact


def test_reasons_are_bounded_and_grouped() -> None:
    assert by_reason([]) == {}
    assert by_reason(["a 1,024.5 b", "a 2 b", "x" * 500, "x" * 600]) == {"a N b": 2, "x" * 120: 2}


class _Counting(Folder):
    """Counts reads and openings of files."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "n_reads", [0])

    def open_mapped(self, name: str) -> Any:
        self.n_reads[0] += 1  # type: ignore[attr-defined]
        return super().open_mapped(name)

    def read(self, name: str) -> bytes:
        self.n_reads[0] += 1  # type: ignore[attr-defined]
        return super().read(name)


def _large(folder: Path, n_units: int, *, files: int) -> None:
    """A score set whose plan has `n_units` units, of which `files` are published: all files are links to two of them."""
    store = Folder(str(folder))
    manifest = new_manifest("score set", {})
    units = [
        Unit(unit=f"u{i:07}", shard="s", format=".parquet", size=1, version="1", start=i, stop=i + 1, first_row=i, rows=1,
             text_bytes=100 + 200 * (i % 2))
        for i in range(n_units)
    ]  # fmt: skip
    store.publish("plan.parquet", Plan(root="r", units=tuple(units)).to_parquet())
    store.publish("manifest.json", dump_json(manifest))
    for kind in (0, 1):  # a large unit has three times the tokens of a small one
        accounts = {"documents": 1 + 2 * kind, "scored": 1 + 2 * kind, "quarantined": 0, "tokens": 10 + 20 * kind}
        table = pa.table({"x": [1]})
        store.publish(f"kind-{kind}", parquet_bytes(table, table.schema, {"accounts": accounts}))
    (folder / "data").mkdir()
    for unit in units[:files]:
        (folder / data_name(unit.unit)).hardlink_to(folder / f"kind-{unit.start % 2}")


def test_a_store_of_many_units_is_read_in_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", 50)
    _large(tmp_path, 4000, files=3000)
    folder = _Counting(str(tmp_path))
    found = contents_of(folder, read_manifest(Folder(str(tmp_path))))
    assert folder.n_reads[0] < 60  # type: ignore[attr-defined]
    assert (found.done, found.of, found.exact) == (3000, 4000, False)
    assert found.counts["text_bytes"] == 1500 * 100 + 1500 * 300
    assert found.counts["tokens"] == pytest.approx(1500 * 10 + 1500 * 30, rel=0.01)
    assert found.counts["documents"] == pytest.approx(1500 + 4500, rel=0.01)


@pytest.mark.long
def test_a_million_units_take_few_reads(tmp_path: Path) -> None:
    _large(tmp_path, 1_000_000, files=1000)
    folder = _Counting(str(tmp_path))
    found = contents_of(folder, read_manifest(Folder(str(tmp_path))))
    assert folder.n_reads[0] < module.SAMPLE + 10  # type: ignore[attr-defined]
    assert (found.done, found.of, found.exact) == (1000, 1_000_000, False)


def test_a_selection(scores: Path, tmp_path: Path) -> None:
    output = tmp_path / "sel"
    select(SelectConfig(ref=(str(scores),), output=str(output), ratio=0.5))
    whole = _contents(output)
    assert (whole.finished, whole.done, whole.of) == (True, N_UNITS, N_UNITS)
    assert (whole.counts["documents"], whole.counts["tokens"]) == (N_DOCUMENTS, TOKENS)
    masks = [mask for path in (output / "data").iterdir() for mask in pq.read_table(path)["mask"].to_pylist()]
    assert whole.counts["tokens_kept"] == sum(sum(mask) for mask in masks)
    assert whole.counts["documents_kept"] == sum(any(mask) for mask in masks)
    for unit in _units(scores)[6:]:
        (output / data_name(unit)).unlink()
    (output / "summary.json").unlink()
    part = _contents(output)
    assert (part.finished, part.done, part.of, part.exact) == (False, 6, N_UNITS, True)
    assert part.counts["documents"] == 24
    assert part.counts["tokens"] == sum(len(document.ids) for document in DOCUMENTS[:24])


def test_token_dynamics(scores: Path, tmp_path: Path) -> None:
    other = write_scores(
        tmp_path / "other", [cut([b for _, b in random_documents(N_DOCUMENTS, seed=1)], [4] * N_UNITS)]
    )
    dynamics(DynamicsConfig(scores=(str(scores), str(other)), output=str(tmp_path / "dyn")))
    found = _contents(tmp_path / "dyn")
    assert (found.finished, found.done, found.of, found.counts["tokens"]) == (True, N_UNITS, N_UNITS, TOKENS)


@pytest.mark.parametrize("kind", ["prior", "import"])
def test_a_derived_set(scores: Path, tmp_path: Path, kind: str) -> None:
    output = tmp_path / kind
    if kind == "prior":
        prior(PriorConfig(scores=str(scores), output=str(output)))
    else:
        rows = [{"id": document.doc_id, "score": 0.5} for document in DOCUMENTS[:30]]
        (tmp_path / "values").mkdir()
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "values" / "a.parquet")
        import_scores(
            ImportConfig(
                values=str(tmp_path / "values"), output=str(output), like=str(scores), unit="other", level="document",
                values_column="score", id_column="id",
            )
        )  # fmt: skip
    found = _contents(output)
    assert (found.finished, found.done, found.of) == (True, N_UNITS, N_UNITS)
    assert (found.counts["documents"], found.counts["tokens"]) == (N_DOCUMENTS, TOKENS)


def test_an_export(scores: Path, tmp_path: Path) -> None:
    select(SelectConfig(ref=(str(scores),), output=str(tmp_path / "sel"), ratio=0.5))
    output = tmp_path / "export"
    export(ExportConfig(selection=str(tmp_path / "sel"), output=str(output), format="bin", units_per_part=4))
    whole = _contents(output)
    assert (whole.finished, whole.done, whole.of, whole.unit) == (True, 3, 3, "parts")
    assert (whole.counts["documents"], whole.counts["tokens"]) == (N_DOCUMENTS, TOKENS)
    assert whole.counts["bytes"] == sum(path.stat().st_size for path in (output / "data").iterdir())
    (output / "_SUCCESS.json").unlink()
    _remove(output, "parts", 1)
    part = _contents(output)
    assert (part.finished, part.done, part.of, part.exact) == (False, 2, 3, True)
    assert part.counts["documents"] == 32
    (tmp_path / "sel").rename(tmp_path / "moved")
    assert _contents(output).of is None


def test_a_deduplicated_corpus(tmp_path: Path) -> None:
    corpus, output = write_corpus(tmp_path / "corpus"), tmp_path / "dedup"
    summary = dedup(
        DedupConfig(input=str(corpus), output=str(output), id_column="id", unit_bytes=2000, units_per_part=3)
    )
    whole = _contents(output)
    n_parts = len(list((output / "parts").iterdir()))
    assert n_parts > 2
    assert (whole.finished, whole.done, whole.of) == (True, n_parts, n_parts)
    assert whole.counts == asdict(summary.counts)
    (output / "_SUCCESS.json").unlink()
    every = _contents(output)
    assert (every.finished, every.done, every.of, every.exact) == (False, n_parts, n_parts, True)
    assert every.counts == asdict(summary.counts)
    _remove(output, "parts", 1)
    assert (_contents(output).done, _contents(output).of) == (n_parts - 1, n_parts)


def _training_run(output: Path, **length: int | None) -> Folder:
    folder = Folder(str(output))
    folder.publish("manifest.json", dump_json(new_manifest("training run", {"length": length})))
    return folder


def test_a_training_run(tmp_path: Path) -> None:
    folder = _training_run(tmp_path / "run", steps=100, tokens=None)
    begun = _contents(tmp_path / "run")
    assert (begun.finished, begun.done, begun.of, begun.unit, begun.counts) == (False, 0, 100, "steps", {})
    rows = [
        dict.fromkeys(LOG_SCHEMA.names, 0) | {"step": step, "tokens_seen": 10 * step, "tokens_trained": 4 * step}
        for step in (20, 40)
    ]
    folder.publish("log.parquet", parquet_bytes(pa.Table.from_pylist(rows, LOG_SCHEMA), LOG_SCHEMA))
    half = _contents(tmp_path / "run")
    assert (half.done, half.of, half.counts) == (40, 100, {"tokens_seen": 400, "tokens_trained": 160})
    folder.publish("_SUCCESS.json", dump_json({"steps": 100, "tokens_seen": 1000, "tokens_trained": 400}))
    whole = _contents(tmp_path / "run")
    assert (whole.finished, whole.done, whole.of) == (True, 100, 100)
    assert whole.counts == {"tokens_seen": 1000, "tokens_trained": 400}


def test_the_steps_of_a_training_run_by_tokens_are_not_known_beforehand(tmp_path: Path) -> None:
    _training_run(tmp_path / "run", steps=None, tokens=5000)
    assert _contents(tmp_path / "run").of is None


def test_a_tuning(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    parts = {"ratio": [0.2, 0.4], "documents": [0.3], "learning_rate": [1e-4], "seeds": 2, "scores": {"ref": "a"}}
    folder.publish("manifest.json", dump_json(new_manifest("tuning", parts)))
    for place in ("all-lr-0.0001/8-0", "live-0.2-lr-0.0001/8-0", "timing/9"):
        folder.publish(f"trials/{place}/_SUCCESS.json", b"{}")
    folder.publish("trials/live-0.4-lr-0.0001/8-0/manifest.json", b"{}")
    found = _contents(tmp_path)
    # the control and two live rules are few enough for one rung, with two seeds each
    assert (found.finished, found.done, found.of, found.unit) == (False, 2, 6, "runs")
    folder.publish("_SUCCESS.json", b"{}")
    assert _contents(tmp_path).finished


def test_a_damaged_summary_is_named(scores: Path) -> None:
    (scores / "_SUCCESS.json").write_text('{"units": "many"}')
    with pytest.raises(InputError, match=r"_SUCCESS\.json"):
        _contents(scores)
