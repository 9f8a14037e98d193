"""Every token format, read back by readers that share no code with its writer."""

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rho_score.exporting.labels import BlocksWriter, LabelsWriter
from rho_score.exporting.megatron import MegatronWriter, megatron_dtype
from rho_score.exporting.nanogpt import BinWriter, bin_dtype
from rho_score.exporting.settings import ExportSettings
from rho_score.exporting.token_source import TokenSource
from rho_score.exporting.writer import Writer
from rho_score.stores.framing import Documents, Frame

BOS, EOS = 0, 1
Rows = list[list[tuple[int, bool]]]  # documents of (token, mask)
tokens = st.one_of(st.integers(2, 300), st.just(EOS))
rows = st.lists(st.lists(st.tuples(tokens, st.booleans()), min_size=1, max_size=9), max_size=12)
frames = st.builds(
    Frame,
    prefix_id=st.sampled_from([None, BOS, EOS]),
    eos_id=st.sampled_from([None, EOS]),
    train_eos=st.booleans(),
)


def _documents(rows: Rows, first: int = 0) -> Documents:
    tokens = [pair for row in rows for pair in row]
    return Documents(
        doc_ids=pa.array([f"d{first + i}" for i in range(len(rows))], pa.string()),
        lengths=np.array([len(row) for row in rows], np.int64),
        input_ids=np.array([token for token, _ in tokens], np.int32),
        mask=np.array([mask for _, mask in tokens], bool),
    )


def _framed(rows: Rows, frame: Frame) -> Rows:
    """Each document with its prefix and one EOS at its end, its own or another."""
    framed = []
    for row in rows:
        own = [pair for pair in row[-1:] if pair[0] == frame.eos_id]
        ends = [(frame.eos_id, frame.train_eos or any(mask for _, mask in own))] if frame.eos_id is not None else []
        front = [] if frame.prefix_id is None else [(frame.prefix_id, False)]
        framed.append([*front, *(row[:-1] if own else row), *ends])
    return framed


@given(rows=rows, frame=frames)
def test_numbers_keep_their_places(rows: Rows, frame: Frame) -> None:
    """Weights and losses of tokens stand beside their tokens; an EOS that is trained on by --train-eos weighs 1."""
    documents = _documents(rows)
    numbers = np.arange(len(documents.input_ids), dtype=np.float32) + 2
    framed = frame.around(replace(documents, values={"weight": numbers, "ref_loss": numbers}))
    weight, ref_loss, at = framed.values["weight"].tolist(), framed.values["ref_loss"].tolist(), iter(numbers.tolist())
    for start, length, row in zip(framed.starts, framed.lengths, rows, strict=True):
        front = int(frame.prefix_id is not None)
        own = [next(at) for _ in row]
        n_more = int(length) - front - len(row)
        assert weight[start : start + front] == [0] * front
        assert ref_loss[start + front : start + front + len(row)] == own
        by_option = frame.train_eos and frame.eos_id is not None
        expected = [*own, 0][: len(row) + n_more]
        assert weight[start + front : start + length] == ([*expected[:-1], 1] if by_option else expected)


def _write(writer: Writer, rows: Rows, n_batches: int = 1) -> dict[str, bytes]:
    """The files after adding the rows in so many batches."""
    edges = np.linspace(0, len(rows), n_batches + 1).astype(int).tolist()
    for start, stop in pairwise(edges):
        writer.add(_documents(rows[start:stop], start))
    return writer.files()


def _table(files: dict[str, bytes]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(io.BytesIO(files[".parquet"])).to_pylist()
    return found


@settings(deadline=None)
@given(rows=rows, frame=frames, n_batches=st.integers(1, 3))
def test_labels(rows: Rows, frame: Frame, n_batches: int) -> None:
    writer = LabelsWriter(frame)
    files = _write(writer, rows, n_batches)
    assert bool(files) == bool(rows)
    found = _table(files) if rows else []
    assert [row["doc_id"] for row in found] == [f"d{i}" for i in range(len(rows))]
    for row, expected in zip(found, _framed(rows, frame), strict=True):
        assert row["input_ids"] == [token for token, _ in expected]
        targets = [(i, token) for i, (token, mask) in enumerate(expected) if mask and i]
        assert [(i, label) for i, label in enumerate(row["labels"]) if label != -100] == targets
    assert writer.written == sum(len(row["input_ids"]) for row in found)
    assert writer.trained == sum(label != -100 for row in found for label in row["labels"])
    if frame.prefix_id is not None and not frame.train_eos:
        assert writer.trained == sum(mask for row in rows for _, mask in row)


@settings(deadline=None)
@given(rows=rows, frame=frames)
def test_every_row_that_is_written_has_a_label(rows: Rows, frame: Frame) -> None:
    """A document that is an EOS alone has none without a prefix, even with --train-eos."""
    export = ExportSettings(
        selection="", output="", format="labels", block_size=None, hard_first=False, frame=frame, pad_id=0, vocabulary=301,
        source=TokenSource(""), join=False, val_share=0, compression="none", corpus=None, margins=(0, 0),
    )  # fmt: skip
    documents = _documents(rows)
    mask = documents.mask.copy()
    mask[documents.starts[export.first_is_no_target(documents)]] = False
    kept, _ = documents.trainable(mask)
    writer = export.writer()
    writer.add(kept)
    found = _table(writer.files()) if len(kept.lengths) else []
    labelled = {
        f"d{i}"
        for i, (row, framed) in enumerate(zip(rows, _framed(rows, frame), strict=True))
        if any(mask for _, mask in row) and any(mask for _, mask in framed[1:])
    }
    assert {row["doc_id"] for row in found} == labelled
    assert all(any(label != -100 for label in row["labels"]) for row in found)


@settings(deadline=None)
@given(rows=rows, frame=frames, n_batches=st.integers(1, 4), size=st.integers(2, 11))
def test_blocks_hold_every_target_once(rows: Rows, frame: Frame, n_batches: int, size: int) -> None:
    writer = BlocksWriter(frame, block_size=size, pad_id=299)
    files = _write(writer, rows, n_batches)
    stream = [(token, mask, n) for n, row in enumerate(_framed(rows, frame)) for token, mask in row]
    every = [stream[begin : begin + size] for begin in range(0, len(stream), size - 1)]
    training = [own for own in every if any(mask for _, mask, _ in own[1:])]
    assert bool(files) == bool(training)
    blocks = _table(files) if files else []
    for block, own in zip(blocks, training, strict=True):
        assert {len(values) for name, values in block.items() if name != "seq_lengths"} == {size}
        n_pad = size - len(own)
        assert block["input_ids"] == [token for token, _, _ in own] + [299] * n_pad
        assert block["labels"][0] == -100
        assert block["labels"][1:] == [t if mask else -100 for t, mask, _ in own[1:]] + [-100] * n_pad
        numbers = [n for _, _, n in own] + [len(rows)] * n_pad
        order = list(dict.fromkeys(numbers))
        assert block["document_ids"] == [n - numbers[0] for n in numbers]
        assert block["position_ids"] == [place for n in order for place in range(numbers.count(n))]
        assert block["seq_lengths"] == [numbers.count(n) for n in order]
    assert writer.trained == sum(mask for _, mask, _ in stream[1:])
    assert writer.written == size * len(blocks)


@settings(deadline=None)
@given(rows=rows, frame=frames.filter(lambda f: f.eos_id is not None), n_batches=st.integers(1, 3))
def test_bin(rows: Rows, frame: Frame, n_batches: int) -> None:
    writer = BinWriter(frame, dtype=bin_dtype(300))
    files = _write(writer, rows, n_batches)
    assert bool(files) == bool(rows)
    if not rows:
        return
    data, mask = np.frombuffer(files[".bin"], np.uint16), np.frombuffer(files[".mask"], np.uint8)
    joined = [pair for row in _framed(rows, frame) for pair in row]
    if frame.prefix_id == EOS:  # one EOS stands between two documents, and one before the first
        joined = [(EOS, False)] + [pair for row in _framed(rows, frame) for pair in row[1:]]
    assert data.tolist() == [token for token, _ in joined]
    assert mask.tolist() == [0, *(mask for _, mask in joined[1:])]
    assert writer.written == len(data)
    assert writer.trained == mask.sum()


def test_types_follow_the_vocabulary() -> None:
    assert [bin_dtype(n).name for n in (50257, 65536, 65537)] == ["uint16", "uint16", "uint32"]
    assert [megatron_dtype(n).name for n in (50257, 65499, 65500)] == ["uint16", "uint16", "int32"]
    files = _write(BinWriter(Frame(eos_id=EOS), dtype=bin_dtype(1 << 17)), [[(100_000, True)]])
    assert files[".bin"] == (100_000).to_bytes(4, "little") + EOS.to_bytes(4, "little")


@pytest.mark.parametrize("prefix", [None, BOS, EOS])
@pytest.mark.parametrize("vocabulary", [300, 70_000])
def test_megatron_reads_it(tmp_path: Path, prefix: int | None, vocabulary: int) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    rows = [[(2 + i, i % 2 == 0) for i in range(n)] for n in (5, 1, 17)] + [[(vocabulary - 1, True)]]
    frame = Frame(prefix_id=prefix, eos_id=EOS)
    for suffix, content in _write(MegatronWriter(frame, dtype=megatron_dtype(vocabulary)), rows, 2).items():
        (tmp_path / f"part{suffix}").write_bytes(content)
    tokens, masks = (IndexedDataset(str(tmp_path / name)) for name in ("part", "part_mask"))
    expected = _framed(rows, Frame(prefix_id=None if prefix == EOS else prefix, eos_id=EOS))
    assert [tokens[i].tolist() for i in range(len(tokens))] == [[token for token, _ in row] for row in expected]
    assert [masks[i].tolist() for i in range(len(masks))] == [[mask for _, mask in row] for row in expected]
    assert tokens.document_indices.tolist() == masks.document_indices.tolist() == [0, 1, 2, 3, 4]
    assert tokens.get(2, offset=3, length=4).tolist() == [token for token, _ in expected[2][3:7]]
