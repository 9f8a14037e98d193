"""What `plan` tells: exact where it was counted, about where it was not, and never wrong by much."""

import bz2
import gzip
import json
import lzma
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rho_score.config import PlanConfig, ServerKind
from rho_score.corpus.plan import make_plan
from rho_score.errors import InputError
from rho_score.scoring import estimate as module
from rho_score.scoring.estimate import Estimate, count
from rho_score.scoring.plan_lines import estimate
from tests.conftest import some_text

TEXTS = ["one", "two words", "", "東京", "four", "five and more of it"]
PRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lambda data: lzma.compress(data, preset=0),
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
    ".lz4": lambda data: pa.Codec("lz4").compress(data, asbytes=True),
}


def _jsonl(texts: list[str]) -> bytes:
    return b"".join(json.dumps({"text": text, "more": "x" * 300}).encode() + b"\n" for text in texts)


def _count(folder: Path, **options: Any) -> Estimate:
    config = PlanConfig(input=str(folder), **options)
    return count(config, make_plan(config))


def _figures(found: Estimate) -> tuple[int, int, int]:
    return found.documents, found.text_bytes, found.tokens


def _expected(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> tuple[int, int, int]:
    tokens = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    return len(texts), sum(len(text.encode()) for text in texts), tokens


@pytest.mark.parametrize("suffix", PRESS)
def test_a_small_shard_is_counted(
    suffix: str, tmp_path: Path, make_model: Callable[[int], Path], tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / f"a.jsonl{suffix}").write_bytes(PRESS[suffix](_jsonl(TEXTS)))
    found = _count(tmp_path, model=str(make_model(1)))
    assert _figures(found) == _expected(TEXTS, tokenizer)
    assert found.documents_exact
    assert found.text_exact
    assert found.tokens_exact
    said = estimate(PlanConfig(input=str(tmp_path), model=str(make_model(1)))).splitlines()
    assert said[2] == "documents                   6  exact: every document was read"
    assert said[3] == "text bytes                 41  exact: every document was read"
    assert said[4].startswith("tokens ")
    assert "exact: tokenizer of " in said[4]


def test_a_mixture_is_counted(
    tmp_path: Path, make_model: Callable[[int], Path], tokenizer: PreTrainedTokenizerFast
) -> None:
    for suffix, press in PRESS.items():
        (tmp_path / f"a.json{suffix}").write_bytes(press(_jsonl(TEXTS)))
    pq.write_table(pa.table({"text": TEXTS * 20}), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_bytes(b"\n\n" + _jsonl(["x"] * 50))
    texts = TEXTS * (20 + len(PRESS)) + ["x"] * 50
    found = _count(tmp_path, model=str(make_model(1)), unit_bytes=300)
    assert _figures(found) == _expected(texts, tokenizer)
    assert found.tokens_exact


def test_many_small_shards_are_counted(tmp_path: Path) -> None:
    for i in range(150):
        (tmp_path / f"{i}.jsonl").write_bytes(_jsonl(["word"] * (i + 1)))
    found = _count(tmp_path)
    assert (found.documents, found.documents_exact, found.text_exact) == (150 * 151 // 2, True, True)


def test_texts_that_parquet_stores_once_are_counted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x" * 1000] * 5000}), tmp_path / "a.parquet")
    found = _count(tmp_path)
    assert (found.documents, found.text_bytes, found.text_exact) == (5000, 5_000_000, True)


def test_documents_and_bytes_are_exact_where_tokens_are_not(tmp_path: Path, make_model: Callable[[int], Path]) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(_jsonl(["word"] * 3480)))
    found = _count(tmp_path, model=str(make_model(1)))
    assert (found.documents, found.text_bytes) == (3480, 4 * 3480)
    assert found.documents_exact
    assert found.text_exact
    assert not found.tokens_exact
    said = estimate(PlanConfig(input=str(tmp_path), model=str(make_model(1))))
    assert "about: from 400 documents, tokenizer of" in said
    assert "about: 4 bytes a token" in estimate(PlanConfig(input=str(tmp_path)))


@pytest.mark.parametrize("suffix", PRESS)
@pytest.mark.parametrize("more", [0, 2000])
def test_a_large_corpus_is_estimated_within_a_tenth(
    suffix: str, more: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of a record is not its text, and however well it is compressed."""
    draw = random.Random(1)
    records = [
        {"text": draw.randbytes(draw.randrange(200)).hex(), "more": "x" * draw.randrange(more + 1)}
        for _ in range(30_000)
    ]
    lines = [json.dumps(record).encode() + b"\n" for record in records]
    for i in range(3):
        (tmp_path / f"{i}.jsonl{suffix}").write_bytes(PRESS[suffix](b"".join(lines[i::3])))
    monkeypatch.setattr(module, "SMALL_BYTES", 1 << 20)
    monkeypatch.setattr(module, "READ_BYTES", 6 << 20)
    found = _count(tmp_path, unit_bytes=1 << 20)
    assert not found.documents_exact
    assert not found.text_exact
    assert found.read < len(records)
    assert found.documents == pytest.approx(len(records), rel=0.1)
    assert found.text_bytes == pytest.approx(sum(len(record["text"]) for record in records), rel=0.1)
    said = estimate(PlanConfig(input=str(tmp_path), unit_bytes=1 << 20)).splitlines()
    assert f"about: from {found.read:,} documents that were read" in said[2]


def test_rows_of_parquet_are_exact_and_their_text_is_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{i} " + "word " * (i % 60) for i in range(20_000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=1000)
    monkeypatch.setattr(module, "SMALL_BYTES", 1 << 16)
    monkeypatch.setattr(module, "READ_BYTES", 1 << 20)
    found = _count(tmp_path, unit_bytes=1 << 18)
    assert (found.documents, found.documents_exact, found.text_exact) == (20_000, True, False)
    assert found.text_bytes == pytest.approx(sum(map(len, texts)), rel=0.1)
    assert "exact: from footers" in estimate(PlanConfig(input=str(tmp_path), unit_bytes=1 << 18))


def test_empty_documents_are_counted(tmp_path: Path, make_model: Callable[[int], Path]) -> None:
    (tmp_path / "a.jsonl").write_bytes(_jsonl([""] * 7))
    found = _count(tmp_path, model=str(make_model(1)))
    assert _figures(found) == (7, 0, 0)
    assert found.tokens_exact
    (tmp_path / "a.jsonl").write_bytes(b" \n\n")
    assert _figures(_count(tmp_path, model=str(make_model(1)))) == (0, 0, 0)


def test_quarantined_documents_are_counted_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(_jsonl(["one"]) + b'{"text": 7}\n{"text": null}\n')
    said = estimate(PlanConfig(input=str(tmp_path)))
    assert "documents                   3  exact" in said
    assert "quarantine                  2  of 3 documents, the first: a.jsonl@" in said


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": 7}\n', "column 'text' is int, not a string"),
        (b'{"text": null}\n', "column 'text' is null"),
        (b"[1]\n[2]\n", "a JSON list, not an object"),
        (b"not JSON\n", "not valid JSON"),
    ],
)
def test_a_corpus_that_would_be_quarantined_whole_is_refused(tmp_path: Path, line: bytes, reason: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(line * 30)
    with pytest.raises(
        InputError, match=r"every one of the \d+ documents .* the first: a\.jsonl@0.*--text-column"
    ) as error:
        estimate(PlanConfig(input=str(tmp_path)))
    assert reason in str(error.value)


def test_five_files_that_are_left_out_are_named(tmp_path: Path) -> None:
    (tmp_path / "z.jsonl").write_bytes(_jsonl(["one"]))
    for i in range(7):
        (tmp_path / f"{i}.csv").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    said = estimate(PlanConfig(input=str(tmp_path)))
    assert "not shards                  7  left out: 0.csv, 1.csv, 2.csv, 3.csv, 4.csv …" in said


def test_token_ids_are_counted_without_a_tokenizer(tmp_path: Path, make_model: Callable[[int], Path]) -> None:
    ids = np.random.default_rng(0).integers(0, 400, 5000).astype("<u2")
    ids.tofile(tmp_path / "a.bin")
    found = _count(tmp_path, token_files="uint16", split_at="1")
    n_documents = int((ids == 1).sum()) + int(ids[-1] != 1)
    assert (found.documents, found.tokens, found.tokens_exact) == (n_documents, 5000, True)
    assert _count(tmp_path, token_files="uint16", model=str(make_model(1))) == found  # its EOS is 1
    said = estimate(PlanConfig(input=str(tmp_path), token_files="uint16", split_at="1", sample_documents=3))
    assert "about: from 3 documents, whose ids were counted" in said
    with pytest.raises(InputError, match=r"the id that ends a document is not known\. Give --model"):
        _count(tmp_path, token_files="uint16")


def test_files_of_token_ids_are_named_with_the_option_that_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(_jsonl(TEXTS))
    (tmp_path / "b.bin").write_bytes(bytes(20))
    said = estimate(PlanConfig(input=str(tmp_path)))
    assert "left out: b.bin (files of token ids named .bin or .npy are read with --token-files)" in said


@pytest.mark.parametrize(("prefix_in_config", "overlap"), [(True, None), (False, 3)])
def test_the_tokens_that_are_sent_are_counted_with_overlap_and_prefix(
    tmp_path: Path, make_model: Callable[[int], Path], prefix_in_config: bool, overlap: int | None
) -> None:
    """Counted by hand: each window begins `overlap` tokens before its first new token."""
    model = Path(shutil.copytree(make_model(1), tmp_path / "model"))
    for path in model.glob("*.safetensors"):
        path.unlink()
    if not prefix_in_config:
        (model / "config.json").unlink()
    texts = [some_text(n, n) for n in (1, 5, 40, 90)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tokenizer, sent = AutoTokenizer.from_pretrained(model), 0
    for text in texts:
        n, at = len(tokenizer(text, add_special_tokens=False)["input_ids"]), 0
        while at < n:
            start = max(0, at - (4 if overlap is None else overlap))
            stop = min(start + 16, n)
            sent += 1 + stop - start + 1  # the prefix, and what vLLM must generate
            at = stop
    found = estimate(
        PlanConfig(
            input=str(tmp_path / "in"), model=str(model), price_per_million_tokens=2.0, context=16, overlap=overlap
        )
    )
    figures = _sent(found)
    assert figures["tokens sent"] == sent
    assert figures["price"] == pytest.approx((sent + figures["check"]) * 2 / 1e6)
    assert "at most: context 16, overlap" in found
    assert "; a prefix and a generated token in each request" in found


def _sent(said: str) -> dict[str, float]:
    """The figures that a plan prints about a server."""
    names = ("tokens sent", "check", "price")
    return {
        name: float(line.removeprefix(name).split()[0].replace(",", ""))
        for line in said.splitlines()
        for name in names
        if line.startswith(name)
    }


@pytest.mark.parametrize("hide_context", [False, True])
@pytest.mark.parametrize("prefix", ["auto", "none", "7"])
@pytest.mark.parametrize(("server_kind", "generates"), [("vllm", 1), ("sglang", 0), ("openai", 1)])
def test_the_tokens_that_are_sent_follow_the_options_of_the_run(
    tmp_path: Path,
    make_model: Callable[[int], Path],
    tokenizer: PreTrainedTokenizerFast,
    hide_context: bool,
    prefix: str,
    server_kind: ServerKind,
    generates: int,
) -> None:
    """Responses to prompts, each in one request and two of them the same."""
    rows = [{"prompt": some_text(4, i), "response": " " + some_text(9, 50 + i)} for i in range(9)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[3], rows[3]]))
    n_prefix, sent = int(prefix != "none"), 0
    for row in rows:
        n_prompt = len(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"])
        n = len(tokenizer(row["prompt"] + row["response"], add_special_tokens=False)["input_ids"])
        sent += n - (n_prompt if hide_context else 0) + n_prefix + generates
    config = PlanConfig(
        input=str(tmp_path), prompt_column="prompt", response_column="response", model=str(make_model(1)),
        price_per_million_tokens=1.0, context=60, prefix=prefix, hide_context=hide_context, server_kind=server_kind,
    )  # fmt: skip
    assert _sent(estimate(config))["tokens sent"] == sent
    with pytest.raises(InputError, match="--hide-context is for prompts"):
        estimate(replace(config, prompt_column=None, response_column=None, text_column="response", hide_context=True))
    with pytest.raises(InputError, match="--prefix must be auto, none or the id"):
        estimate(replace(config, prefix="x"))


def test_a_price_needs_a_tokenizer_and_an_overlap_that_fits(tmp_path: Path, make_model: Callable[[int], Path]) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match="--price-per-million-tokens needs --model"):
        estimate(PlanConfig(input=str(tmp_path), price_per_million_tokens=1.0))
    with pytest.raises(InputError, match="--overlap 20 does not fit --context 16"):
        estimate(
            PlanConfig(
                input=str(tmp_path), model=str(make_model(1)), price_per_million_tokens=1.0, context=16, overlap=20
            )
        )
