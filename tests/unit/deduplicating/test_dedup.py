"""Whole deduplications in threads, against the exact Jaccard similarity of all pairs."""

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rho_score.config import CorpusConfig, DedupConfig
from rho_score.corpus.content import columns_of
from rho_score.corpus.documents import documents
from rho_score.corpus.plan import make_plan
from rho_score.deduplicating import pairs as pairs_stage
from rho_score.deduplicating.job import dedup
from rho_score.deduplicating.pairs import EXACT, Rows, similar_pairs
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.stores.signs import RUNS
from tests.conftest import damage_row_group, write_corpus
from tests.inputs.tar_kinds import tar

NAMES = {"id_column": "id", "group_column": "source"}
VOCABULARY = [f"word{i}" for i in range(3000)]


def _edited(words: list[str], n: int, draw: random.Random) -> list[str]:
    """The words with `n` of them replaced, far apart."""
    words = list(words)
    for i in range(n):
        words[(i * len(words)) // max(n, 1) + 3] = draw.choice(VOCABULARY)
    return words


def _planted() -> list[dict[str, Any]]:
    """600 documents: families of copies, of edited copies, and strangers; in a random order."""
    draw = random.Random(1)
    rows = []
    for family in range(120):
        words = draw.choices(VOCABULARY, k=draw.randint(60, 200))
        text = " ".join(words)
        rows += [(text, family), (text.upper() if family % 2 else text, family)]
        rows += [(" ".join(_edited(words, n, draw)), family) for n in (1, 2, draw.randint(3, 8))]
    draw.shuffle(rows)
    return [{"id": f"d{i}", "source": "ab"[family % 2], "text": text, "n": i} for i, (text, family) in enumerate(rows)]


def _write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Parquet shards in two folders, and JSON Lines."""
    (folder / "lang=en").mkdir(parents=True)
    third = len(rows) // 3
    pq.write_table(pa.Table.from_pylist(rows[:third]), folder / "a.parquet", row_group_size=40)
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[third : 2 * third]))
    pq.write_table(pa.Table.from_pylist(rows[2 * third :]), folder / "lang=en" / "c.parquet", row_group_size=30)
    return folder


def _content(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.parent.name != RUNS
    }


def _dropped(output: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((output / "dropped").iterdir()) for row in pq.read_table(path).to_pylist()]


def _kept(output: Path, **names: str) -> list[tuple[str, str | None]]:
    """The ids and texts of a corpus, as every command reads it."""
    config = CorpusConfig(input=str(output), **names)
    plan = make_plan(config)
    return [
        (document.doc_id, document.text)
        for unit in plan.units
        for document in documents(Folder(plan.root), unit, columns_of(config))
    ]


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def _jaccard(a: set[Any], b: set[Any]) -> float:
    return len(a & b) / len(a | b)


def test_against_all_pairs(tmp_path: Path) -> None:
    rows = _planted()
    corpus, output = _write(tmp_path / "corpus", rows), tmp_path / "out"
    summary = dedup(DedupConfig(input=str(corpus), output=str(output), unit_bytes=20_000, units_per_part=3, **NAMES))
    text = {row["id"]: row["text"] for row in rows}
    order = {row["id"]: i for i, row in enumerate(rows)}
    shingles = {name: _shingles(of) for name, of in text.items()}
    dropped = {row["doc_id"]: row for row in _dropped(output)}
    kept = dict(_kept(output / "data", id_column="id"))

    assert kept == {name: of for name, of in text.items() if name not in dropped}
    counts = Counter(row["why"] for row in dropped.values())
    assert (summary.counts.exact, summary.counts.near, summary.counts.unreadable) == (
        counts["exact"],
        counts["near"],
        0,
    )
    assert summary.counts.documents == len(rows) == len(kept) + len(dropped)
    assert summary.counts.bytes == sum(len(of.encode()) for of in text.values())
    assert summary.counts.bytes_kept == sum(len(text[name].encode()) for name in kept)
    by_group = Counter(rows[order[name]]["source"] for name in kept)
    assert {group: of.kept for group, of in summary.groups.items()} == by_group

    errors = []
    for name, row in dropped.items():
        kept_id = row["kept_id"]
        assert kept_id in kept
        assert order[kept_id] < order[name]
        assert (row["why"] == "exact") == (text[name] == text[kept_id])
        exact = _jaccard(shingles[name], shingles[kept_id])
        if row["similarity"] is not None:
            errors.append(row["similarity"] - exact)
            assert row["similarity"] >= 0.8 or row["why"] == "exact"
            assert exact > 0.65  # four standard errors below
    assert abs(np.mean(errors)) < 0.02

    together = {name: dropped[name]["kept_id"] if name in dropped else name for name in text}
    found = {"sure": [0, 0], "near": [0, 0], "far": [0, 0]}
    for a, b in itertools.combinations(text, 2):
        exact = _jaccard(shingles[a], shingles[b])
        place = "sure" if exact >= 0.93 else "near" if 0.8 <= exact < 0.93 else "far"
        found[place][0] += 1
        found[place][1] += together[a] == together[b]
        if text[a] == text[b] or text[a].lower() == text[b].lower():
            assert together[a] == together[b]
    assert found["sure"][0] > 150
    assert found["sure"][1] == found["sure"][0]  # a candidate with a probability of 0.9999 and more
    assert found["near"][0] > 150
    assert found["near"][1] > 0.9 * found["near"][0]
    assert found["far"][1] < 0.005 * found["far"][0]

    largest = summary.clusters[0]
    assert largest.documents == max(Counter(together.values()).values())
    assert together[largest.dropped[0]] == largest.kept
    assert not any((output / "signatures").iterdir())


def test_workers_partitions_and_order_change_nothing(tmp_path: Path) -> None:
    corpus = _write(tmp_path / "corpus", _planted())
    written = []
    for i, options in enumerate([{"workers": 1}, {"workers": 5}, {"partitions": 7}]):
        output = tmp_path / f"out{i}"
        config = DedupConfig(
            input=str(corpus), output=str(output), unit_bytes=9_000, units_per_part=2, **NAMES, **options
        )
        dedup(config)
        files = _content(output)
        if "partitions" in options:
            files = {name: content for name, content in files.items() if name not in ("manifest.json", "README.md")}
            assert files == {name: written[0][name] for name in files}
        written.append(files)
    assert written[0] == written[1]
    assert sum(name.startswith("data/") for name in written[0]) > 10
    assert any(name.startswith("data/lang=en/") for name in written[0])


def test_pairs_do_not_depend_on_the_order_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small buckets and, with the limit at 4, large ones; against a plain loop over all pairs."""
    rng = np.random.default_rng(0)
    n = 300
    keys, numbers = rng.integers(0, 40, n, dtype=np.uint64), rng.permutation(n).astype(np.int64)
    signatures = rng.integers(0, 3, (n, 8), dtype=np.uint8) * 17
    digests = rng.integers(0, 60, n, dtype=np.uint64)
    expected = set()
    for a, b in itertools.combinations(np.argsort(numbers), 2):
        equal = sum(int(x) == int(y) for x, y in zip(signatures[a], signatures[b], strict=True)) * 2
        exact = digests[a] == digests[b]
        if keys[a] == keys[b] and (exact or (equal / 16 - 1 / 16) / (15 / 16) >= 0.5):
            expected.add((int(numbers[a]), int(numbers[b]), EXACT if exact else equal))
    assert len(expected) > 50

    def found() -> set[tuple[int, int, int]]:
        order = rng.permutation(n)
        rows = Rows.ordered(keys[order], numbers[order], digests[order], signatures[order])
        return {
            (int(rows.documents[a]), int(rows.documents[b]), int(equal))
            for first, second, numbers_equal in similar_pairs(rows, 16, 0.5)
            for a, b, equal in zip(first, second, numbers_equal, strict=True)
        }

    assert found() == found() == expected
    monkeypatch.setattr(pairs_stage, "ALL_PAIRS", 4)
    some = found()
    assert some == found()
    assert some < expected
    linked = {b for _, b, _ in some}
    first_of_bucket = {min(numbers[keys == key]) for key in np.unique(keys)}
    assert {b for a, b, _ in expected if a in first_of_bucket} <= linked


def test_every_format_with_documents_that_cannot_be_read(tmp_path: Path) -> None:
    corpus, output = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    rows = [
        {"id": f"p{i}", "source": None, "text": f"text number {i} and some words more", "extra": i} for i in range(8)
    ]
    pq.write_table(
        pa.Table.from_pylist(rows).select(["text", "id", "source", "extra"]), corpus / "z.parquet", row_group_size=4,
        use_dictionary=False, column_encoding={"text": "PLAIN"}, write_page_checksum=True,
    )  # fmt: skip
    damage_row_group(corpus / "z.parquet", 1)
    before = _kept(corpus, **NAMES)
    summary = dedup(DedupConfig(input=str(corpus), output=str(output), **NAMES))
    unreadable = [row for row in _dropped(output) if row["why"] == "unreadable"]
    assert Counter(row["doc_id"] for row in unreadable) == Counter(name for name, text in before if text is None)
    assert all(row["reason"] and row["kept_id"] is None and row["similarity"] is None for row in unreadable)
    assert summary.counts.unreadable == len(unreadable) == 9
    assert summary.not_shards == ("NOTES.txt",)
    assert sorted(_kept(output / "data", **NAMES)) == sorted(pair for pair in before if pair[1] is not None)
    table = pq.read_table(
        next(path for path in (output / "data").glob("*.parquet") if "extra" in pq.read_schema(path).names)
    )
    assert table.to_pylist() == [{key: row[key] for key in table.column_names} for row in rows[:4]]


def test_the_card_names_the_kept_rows(tmp_path: Path) -> None:
    """Hugging Face's reader takes the folder of a corpus of one format, and no other file of it."""
    from datasets import load_dataset

    rows = _planted()[:60]
    (tmp_path / "corpus").mkdir()
    for i in range(2):
        pq.write_table(pa.Table.from_pylist(rows[i::2]), tmp_path / "corpus" / f"{i}.parquet")
    dedup(DedupConfig(input=str(tmp_path / "corpus"), output=str(tmp_path / "out"), units_per_part=1, **NAMES))
    read = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(zip(read["id"], read["text"], strict=True)) == sorted(_kept(tmp_path / "out" / "data", **NAMES))
    assert read.num_rows < 60


def test_texts_without_words_are_compared_as_they_are(tmp_path: Path) -> None:
    texts = ["…", "!!", "…", "", "", "!!!", "a b", "A, b!", "a b c"]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    summary = dedup(DedupConfig(input=str(tmp_path / "c.jsonl"), output=str(tmp_path / "out")))
    assert [text for _, text in _kept(tmp_path / "out" / "data")] == ["…", "!!", "", "!!!", "a b", "a b c"]
    assert (summary.counts.exact, summary.counts.near) == (2, 1)


def test_chats_are_compared_by_the_text_of_their_messages(tmp_path: Path) -> None:
    chat = [
        {"role": "user", "content": "What is a quantile of losses?"},
        {"role": "assistant", "content": "A cut, mostly."},
    ]
    other = [*chat[:1], {"role": "assistant", "content": "I can tell you about something else entirely, at length."}]
    rows = [{"messages": of, "n": i} for i, of in enumerate([chat, other, [{**chat[0], "name": "Ann"}, chat[1]], chat])]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = dedup(
        DedupConfig(input=str(tmp_path / "c.jsonl"), output=str(tmp_path / "out"), messages_column="messages")
    )
    assert (summary.counts.kept, summary.counts.exact, summary.counts.near) == (2, 1, 1)
    kept = [json.loads(line) for line in next((tmp_path / "out" / "data").iterdir()).read_text().splitlines()]
    assert kept == rows[:2]


def test_chats_with_tools_are_compared_by_the_text_of_their_messages(tmp_path: Path) -> None:
    tools = [
        {"type": "function", "function": {"name": "weather", "description": "Tells the weather of a place. " * 40}}
    ]
    asked = "Which of the loaves that we baked on Monday is the one with " + " ".join(VOCABULARY[:30])
    chats = [asked, asked.upper(), " ".join(VOCABULARY[100:160])]
    rows = [{"messages": [{"role": "user", "content": of}], "tools": tools, "n": i} for i, of in enumerate(chats)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"messages_column": "messages", "tools_column": "tools"}
    summary = dedup(DedupConfig(input=str(tmp_path / "c.jsonl"), output=str(tmp_path / "out"), **options))
    assert (summary.counts.kept, summary.counts.exact, summary.counts.near) == (2, 0, 1)
    kept = [json.loads(line) for line in next((tmp_path / "out" / "data").iterdir()).read_text().splitlines()]
    assert kept == [rows[0], rows[2]]
    parts = json.loads((tmp_path / "out" / "manifest.json").read_text())["parts"]
    assert parts["text_of_chats"] == "messages"  # a run that compared no text is not gone on with


def test_tars_are_refused_before_any_work(tmp_path: Path) -> None:
    """Their rows cannot be written again, which the last stage would find out."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"txt": "a"}\n')
    (tmp_path / "in" / "b.tar").write_bytes(tar(("s/1.txt", b"one"), ("s/2.txt", b"one")))
    for dry_run in (False, True):
        config = DedupConfig(
            input=str(tmp_path / "in"), output=str(tmp_path / "out"), text_column="txt", dry_run=dry_run
        )
        with pytest.raises(
            InputError, match=r"not possible from tars \(b\.tar\)\. Write the samples as Parquet or JSON"
        ):
            dedup(config)
        assert not (tmp_path / "out").exists()


def test_files_of_token_ids_are_named_without_an_option_that_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(8))
    with pytest.raises(
        InputError, match=r"named \.bin or \.npy are not read: remove duplicates before tokenizing"
    ) as error:
        dedup(DedupConfig(input=str(tmp_path), output=f"{tmp_path}-out"))
    assert "--token-files" not in str(error.value)


def test_a_dry_run_counts_the_same_and_writes_nothing(tmp_path: Path) -> None:
    corpus = _write(tmp_path / "corpus", _planted())
    config = DedupConfig(input=str(corpus), output=str(tmp_path / "out"), unit_bytes=20_000, **NAMES)
    dry = dedup(DedupConfig(**{**config.__dict__, "dry_run": True}))
    assert not (tmp_path / "out").exists()
    wet = dedup(config)
    assert (dry.counts, dry.groups, dry.clusters) == (wet.counts, wet.groups, wet.clusters)
    assert dry.counts.dropped > 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": 0.0}, "--similarity must be above 0 and at most 1, got 0"),
        ({"similarity": 1.5}, "--similarity must be above 0 and at most 1, got 1.5"),
        ({"permutations": 0}, "--permutations must be between 1 and 4096, got 0"),
        ({"shingle": 0}, "--shingle must be at least 1, got 0"),
        ({"units_per_part": 0}, "--units-per-part must be at least 1, got 0"),
        ({"partitions": 0}, "--partitions must be at least 1, got 0"),
        ({"token_files": "uint16"}, "--token-files and --split-at are for token ids, so remove duplicates before"),
        ({"split_at": "5"}, "--token-files and --split-at are for token ids, so remove duplicates before"),
        ({"chosen_column": "text", "rejected_column": "other"}, "a row with --chosen-column is two documents"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    (tmp_path / "c.jsonl").write_text('{"text": "a", "other": "b"}\n')
    with pytest.raises(InputError, match=re.escape(message)):
        dedup(DedupConfig(input=str(tmp_path / "c.jsonl"), output=str(tmp_path / "out"), **options))
    assert not (tmp_path / "out").exists()


def test_an_output_of_other_options_or_of_a_changed_corpus_is_refused(tmp_path: Path) -> None:
    corpus = _write(tmp_path / "corpus", _planted()[:30])
    config = {"input": str(corpus), "output": str(tmp_path / "out"), **NAMES}
    dedup(DedupConfig(**config))
    assert dedup(DedupConfig(**config)).computed == 0
    with pytest.raises(InputError, match=r"similarity: there 0.8, now 0.7"):
        dedup(DedupConfig(**config, similarity=0.7))
    with pytest.raises(InputError, match=r"lies inside the corpus"):
        dedup(DedupConfig(**{**config, "output": str(corpus / "out")}))
    (corpus / "b.jsonl").write_text('{"id": "x", "source": "a", "text": "new"}\n')
    with pytest.raises(InputError, match="plan_sha256"):
        dedup(DedupConfig(**config))


def test_a_shard_that_changes_between_the_stages_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = _write(tmp_path / "corpus", _planted()[:30])
    real = pairs_stage.similar_pairs

    def change(*arguments: Any) -> Any:
        (corpus / "b.jsonl").write_text('{"id": "x", "source": "a", "text": "new"}\n')
        return real(*arguments)

    monkeypatch.setattr(pairs_stage, "similar_pairs", change)
    with pytest.raises(RhoScoreError, match=r"b.jsonl changed since the run was planned"):
        dedup(DedupConfig(input=str(corpus), output=str(tmp_path / "out"), **NAMES))


@pytest.mark.parametrize("stage", ["signatures", "parts"])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, stage: str) -> None:
    corpus = _write(tmp_path / "corpus", _planted())
    options = {"input": str(corpus), "unit_bytes": 1_500, "units_per_part": 1, "workers": 1, **NAMES}
    dedup(DedupConfig(output=str(tmp_path / "peace"), **options))
    output = tmp_path / "out"
    code = (
        "import sys, json; from rho_score.config import DedupConfig; from rho_score.deduplicating.job import dedup;"
        "dedup(DedupConfig(**json.loads(sys.argv[1])))"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps({**options, "output": str(output)})],
        cwd=Path(__file__).parents[3], env={**os.environ, "RAY_ADDRESS": ""}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 120
    while driver.poll() is None and len(list((output / stage).glob("*.json"))) < 5:
        assert time.monotonic() < end, "it never began"
        time.sleep(0.001)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (output / "_SUCCESS.json").exists()
    done = {path: path.stat().st_mtime_ns for path in (output / stage).glob("*.json")}
    dedup(DedupConfig(output=str(output), **options))
    if stage == "parts":
        assert {path: path.stat().st_mtime_ns for path in done} == done
    assert _content(output) == _content(tmp_path / "peace")
