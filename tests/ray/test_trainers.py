"""Trainers' own readers and collators take an export as it is, and find the loss of isolated documents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from rho_score.config import ExportConfig, SelectConfig
from rho_score.errors import InputError
from rho_score.exporting.job import export
from rho_score.selecting.job import select
from rho_score.stores.score_set import ScoreSet
from rho_score.training.blocks import ScoredBlocks, collate_blocks

BLOCK = 48


@pytest.fixture(scope="module")
def selection(scores: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Half of the tokens."""
    chosen = str(tmp_path_factory.mktemp("half") / "selection")
    select(SelectConfig(output=chosen, ref=(str(scores["ref"]),), base=str(scores["base"]), ratio=0.5))
    return chosen


def exported(store: str, output: Path, **options: Any) -> Any:
    """The rows of an export, as `load_dataset` reads its folder."""
    export(ExportConfig(selection=store, output=str(output), **options))
    return load_dataset(str(output), split="train")


@torch.no_grad()
def by_hand(model: Any, rows: Any) -> float:
    """The oracle: the mean loss of the labels, each document by itself in a plain forward."""
    total, n = 0.0, 0
    for row in rows:
        ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
        start = 0
        for length in row.get("seq_lengths", [len(ids)]):
            part = slice(start, start + length)
            start += length
            if length < 2:
                continue
            logits = model(ids[part][None]).logits[0, :-1].float()
            targets = labels[part][1:]
            total += float(torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum"))
            n += int((targets != -100).sum())
    return total / n


def evaluated(trainer: Any) -> float:
    """The loss that a trainer finds; its mean over batches is that of one batch, since there is one."""
    return float(trainer.evaluate()["eval_loss"])


def arguments(output: Path, kind: Any = TrainingArguments, **options: Any) -> Any:
    """Arguments of a trainer that evaluates all rows in one batch."""
    plain = {"use_cpu": True, "bf16": False, "report_to": [], "per_device_eval_batch_size": 64, "disable_tqdm": True}
    return kind(str(output), **(plain | options))


@pytest.fixture
def model(make_model: Callable[[int], Path]) -> Any:
    """The model to train, in evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(make_model(2), dtype=torch.float32).eval()


def test_hugging_faces_trainer_with_its_own_collator(
    selection: str, model: Any, make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    rows = exported(selection, tmp_path / "rows", format="labels").select(range(40))
    assert rows.column_names == ["doc_id", "input_ids", "labels", "attention_mask"]  # the last three are Axolotl's
    tokenizer = AutoTokenizer.from_pretrained(make_model(2))
    tokenizer.pad_token = tokenizer.eos_token
    trainer = Trainer(
        model,
        arguments(tmp_path / "out"),
        eval_dataset=rows.remove_columns("doc_id"),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    assert evaluated(trainer) == pytest.approx(by_hand(model, rows), rel=1e-5)


def test_hugging_faces_trainer_with_packed_rows(selection: str, model: Any, tmp_path: Path) -> None:
    rows = exported(selection, tmp_path / "rows", format="labels", block_size=BLOCK).select(range(40))
    expected = by_hand(model, rows)
    model.config.use_cache = False
    packed = rows.select_columns(["input_ids", "labels", "position_ids"])
    trainer = Trainer(model, arguments(tmp_path / "out"), eval_dataset=packed, data_collator=collate_blocks)
    assert evaluated(trainer) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("block_size", [None, BLOCK])
def test_trl_with_its_own_collator(
    selection: str, make_model: Callable[[int], Path], model: Any, tmp_path: Path, block_size: int | None
) -> None:
    rows = exported(selection, tmp_path / "rows", format="labels", block_size=block_size).select(range(40))
    expected = by_hand(model, rows)
    tokenizer = AutoTokenizer.from_pretrained(make_model(2))
    tokenizer.pad_token = tokenizer.eos_token
    options = {
        "padding_free": block_size is not None,
        "max_length": None,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    trainer = SFTTrainer(
        model,
        arguments(tmp_path / "out", SFTConfig, **options),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
    )
    assert evaluated(trainer) == pytest.approx(expected, rel=1e-4)


def test_levanters_weights_are_shifted(selection: str, tmp_path: Path) -> None:
    labels = exported(selection, tmp_path / "labels", format="labels")
    weights = exported(selection, tmp_path / "weights", format="levanter")
    for row, other in zip(labels, weights, strict=True):
        assert other["input_ids"] == row["input_ids"]
        assert other["loss_weights"] == [float(label != -100) for label in row["labels"][1:]] + [0.0]


def test_olmos_files_are_flat_arrays(selection: str, tmp_path: Path) -> None:
    export(ExportConfig(selection=selection, output=str(tmp_path / "olmo"), format="olmo"))
    export(ExportConfig(selection=selection, output=str(tmp_path / "bin"), format="bin"))
    tokens = np.memmap(tmp_path / "olmo/data/part-00000.token_ids.npy", np.uint16, "r")
    mask = np.memmap(tmp_path / "olmo/data/part-00000.label_mask.npy", np.bool_, "r")
    assert len(tokens) == len(mask)
    assert tokens.tobytes() == (tmp_path / "bin/data/part-00000.bin").read_bytes()
    assert mask.tobytes() == (tmp_path / "bin/data/part-00000.mask").read_bytes()


def test_a_score_set_is_exported_with_its_losses(scores: dict[str, Path], tmp_path: Path) -> None:
    rows = exported(str(scores["ref"]), tmp_path / "rows", format="labels", block_size=BLOCK, columns=("ref-loss",))
    blocks = ScoredBlocks(str(scores["ref"]), block_size=BLOCK, cache=str(tmp_path / "cache"))
    assert len(blocks) == len(rows)
    batch, own = collate_blocks(list(rows)), collate_blocks([blocks[i] for i in range(len(blocks))])
    assert batch["seq_lengths"] == own["seq_lengths"]
    for name in ("input_ids", "labels", "position_ids", "ref_loss"):
        np.testing.assert_array_equal(batch[name], own[name], err_msg=name)


def test_a_selection_carries_scores_and_reference_losses(
    selection: str, scores: dict[str, Path], tmp_path: Path
) -> None:
    rows = exported(selection, tmp_path / "rows", format="labels", columns=("score", "ref-loss"))
    losses = {}
    for name in ("ref", "base"):
        store = ScoreSet.open(str(scores[name]))
        for unit in store.units:
            losses.update({(name, row["doc_id"]): row["loss"] for row in store.unit_table(unit.unit).to_pylist()})
    assert len(rows) > 30
    for row in rows:
        ref, base = losses["ref", row["doc_id"]], losses["base", row["doc_id"]]
        assert row["ref_loss"] == [None, *ref, None]  # around them stand the prefix and the EOS
        excess = (np.array(base, np.float32) - np.array(ref, np.float32)).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(np.array(row["excess"][1:-1], np.float32), excess)
    export(ExportConfig(selection=selection, output=str(tmp_path / "bin"), format="bin", columns=("score",)))
    numbers = np.fromfile(tmp_path / "bin/data/part-00000.excess", np.float16)
    assert len(numbers) == len(np.fromfile(tmp_path / "bin/data/part-00000.mask", np.uint8))
    kept = [value for row in rows for value in row["excess"] if value is not None]
    np.testing.assert_array_equal(numbers[~np.isnan(numbers)], np.array(kept, np.float16))


@pytest.mark.parametrize("store", ["scores", "selection"])
def test_stores_are_data_sets(store: str, scores: dict[str, Path], selection: str) -> None:
    rows = load_dataset(str(scores["ref"]) if store == "scores" else selection, split="train")
    assert {"doc_id", "input_ids"} < set(rows.column_names)
    assert len(rows) == ScoreSet.open(str(scores["ref"])).summary["scored"]


def test_the_collator_refuses_rows_that_are_not_packed(selection: str, tmp_path: Path) -> None:
    rows = exported(selection, tmp_path / "rows", format="labels")
    with pytest.raises(InputError, match="not packed"):
        collate_blocks([rows[0], rows[1]])
    packed = [exported(selection, tmp_path / f"{n}", format="labels", block_size=n)[0] for n in (32, 48)]
    with pytest.raises(InputError, match="one length"):
        collate_blocks(packed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "megatron", "columns": ("score",)}, "--columns is for --format labels and bin"),
        ({"format": "labels", "columns": ("score",), "order": "easy-first"}, "in the order of the corpus"),
    ],
)
def test_columns_that_cannot_be_written_are_refused(
    options: dict[str, Any], words: str, selection: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        export(ExportConfig(selection=selection, output=str(tmp_path / "out"), **options))
