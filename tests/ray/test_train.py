"""Training runs: the loss of every step is right, the order of the data too, and a run that dies goes on."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ray.util.state import list_actors
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from rho_score.config import ReportConfig, ScoreConfig, SelectConfig, TrainConfig
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.reporting.page import report
from rho_score.scoring.job import score
from rho_score.selecting.job import select
from rho_score.stores.claim import claim
from rho_score.stores.lineage import ancestry
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from rho_score.stores.training_run import TrainingRun
from rho_score.training.blocks import IGNORED, ScoredBlocks, collate_blocks
from rho_score.training.checkpoints import checkpoints
from rho_score.training.job import train
from rho_score.training.order import Order, RankPlaces
from rho_score.training.ranks import Ranks
from rho_score.training.settings import resolve_settings
from rho_score.training.worker import train_worker
from tests.unit.training.gloo import on_two_ranks

BLOCK = 64
OPTIONS: dict[str, Any] = {
    "block_size": BLOCK, "batch_tokens": 4 * BLOCK, "micro_batch": 2, "learning_rate": 1e-2, "steps": 6, "gpus_per_worker": 0,
    "save_every": 2, "dtype": "float32",
}  # fmt: skip


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of block files that all runs of these tests share."""
    return str(tmp_path_factory.mktemp("blocks"))


@pytest.fixture
def here(
    tmp_path: Path, cache: str, make_model: Callable[[int], Path], scores: dict[str, Path]
) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Trains in this process, on the references' scores by default; returns the run and its totals."""

    def run(output: str = "run", **changes: Any) -> tuple[Path, dict[str, Any]]:
        config = config_of(tmp_path / output, make_model(2), cache, scores, **changes)
        settings, manifest = resolve_settings(config, gpu_here=False)
        claim(Folder(config.output), manifest, {})
        return tmp_path / output, train_worker(settings, lambda *_: None)

    return run


def config_of(output: Path, base: Path, cache: str, sets: dict[str, Path], **changes: Any) -> TrainConfig:
    """A run's options."""
    data = {} if {"text", "selection"} & changes.keys() else {"scores": (str(sets["ref"]),)}
    return TrainConfig(**({"model": str(base), "output": str(output), "cache": cache} | OPTIONS | data | changes))


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The trained weights of a run."""
    return load_file(run / "model" / "model.safetensors")


def log_of(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's log."""
    rows: list[dict[str, Any]] = pq.read_table(run / "log.parquet").to_pylist()
    return rows


class _Listed(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Blocks in a given order, as a plain Trainer takes them."""

    def __init__(self, blocks: ScoredBlocks, order: list[int]) -> None:
        self._blocks, self._order = blocks, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        block = self._blocks[self._order[index]]
        return {name: block[name] for name in ("input_ids", "labels", "position_ids")}


class _InOrder(Trainer):
    """A plain Trainer that does not shuffle."""

    losses: list[float]

    def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
        return None

    def log(self, logs: dict[str, float], *_: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


@pytest.mark.parametrize("rule", [{}, {"ratio": 1.0}], ids=["no rule", "ratio 1"])
def test_every_token_and_a_plain_trainer_step_for_step(
    here: Callable[..., Any], cache: str, make_model: Callable[[int], Path], scores: dict[str, Path], tmp_path: Path,
    rule: dict[str, float],
) -> None:  # fmt: skip
    run, _ = here(**rule)
    blocks = ScoredBlocks(str(scores["ref"]), block_size=BLOCK, cache=cache)
    order = Order(len(blocks), 0)
    model = AutoModelForCausalLM.from_pretrained(make_model(2), dtype=torch.float32)
    model.config.use_cache = False
    arguments = TrainingArguments(
        str(tmp_path / "plain"), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=6,
        learning_rate=1e-2, lr_scheduler_type="cosine", warmup_steps=0, weight_decay=0.1, adam_beta2=0.95, seed=0,
        logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
        dataloader_pin_memory=False,
    )  # fmt: skip
    plain = _InOrder(
        model, arguments, train_dataset=_Listed(blocks, [order.at(i) for i in range(24)]), data_collator=_stack
    )
    plain.losses = []
    plain.remove_callback(PrinterCallback)
    plain.train()
    np.testing.assert_allclose([row["loss"] for row in log_of(run)], plain.losses, atol=2e-4)
    for name, value in model.state_dict().items():
        if name in (found := weights(run)):
            np.testing.assert_allclose(found[name], value, atol=3e-4, err_msg=name)


def _stack(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def losses_alone(model: Any, block: dict[str, Any]) -> np.ndarray:
    """The oracle: a plain forward of each document of a block by itself; NaN where there is no target."""
    found = np.full(BLOCK, np.nan)
    start = 0
    for length in block["seq_lengths"]:
        ids = block["input_ids"][start : start + length]
        logits = model(ids[None]).logits[0].float()
        found[start + 1 : start + length] = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
        start += length
    return np.where(block["labels"].numpy() == IGNORED, np.nan, found)


def test_the_first_step_is_a_masked_mean_computed_by_hand(
    here: Callable[..., Any], cache: str, make_model: Callable[[int], Path], scores: dict[str, Path]
) -> None:
    run, _ = here(ratio=0.4, steps=1)
    blocks = ScoredBlocks(str(scores["ref"]), block_size=BLOCK, cache=cache)
    order = Order(len(blocks), 0)
    model = AutoModelForCausalLM.from_pretrained(make_model(2), dtype=torch.float32).eval()
    kept, dropped, thresholds = [], [], []
    for micro_batch in range(2):
        rows = [blocks[order.at(2 * micro_batch + i)] for i in range(2)]
        with torch.no_grad():
            losses = np.concatenate([losses_alone(model, row) for row in rows])
        excess = losses - np.concatenate([row["ref_loss"].numpy() for row in rows])
        eligible = ~np.isnan(excess)
        n_keep = round(0.4 * int(eligible.sum()))
        best = np.argsort(np.where(eligible, -excess, np.inf), kind="stable")[:n_keep]
        mask = np.zeros(len(losses), bool)
        mask[best] = True
        kept += losses[mask].tolist()
        dropped += losses[~mask & ~np.isnan(losses)].tolist()
        thresholds.append(excess[mask].min())
    [row] = log_of(run)
    assert row["tokens_trained"] == len(kept)
    assert row["tokens_seen"] == len(kept) + len(dropped)
    assert row["loss_kept"] == pytest.approx(np.mean(kept), abs=1e-3)
    assert row["loss_dropped"] == pytest.approx(np.mean(dropped), abs=1e-3)
    assert row["threshold"] == pytest.approx(np.mean(thresholds), abs=1e-3)
    # its gradient, from a plain forward of whole blocks, moves the weights as the run's did
    total = torch.zeros(())
    for micro_batch in range(2):
        batch = collate_blocks([blocks[order.at(2 * micro_batch + i)] for i in range(2)])
        logits = model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="none"
        ).view(2, -1)
        excess = losses.detach() - batch["ref_loss"][:, 1:]
        eligible = (batch["labels"][:, 1:] != IGNORED) & ~torch.isnan(excess)
        n_keep = round(0.4 * int(eligible.sum()))
        best = torch.where(eligible, excess, -torch.inf).flatten().topk(n_keep).indices
        total = total + losses.flatten()[best].sum()
    (total / len(kept)).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert row["grad_norm"] == pytest.approx(float(norm), rel=1e-3)


def test_a_threshold_divides_by_what_it_selected(here: Callable[..., Any]) -> None:
    run, _ = here(threshold=0.5, steps=1)
    [row] = log_of(run)
    assert 0 < row["tokens_trained"] < row["tokens_seen"]
    accumulated, _ = here("one-pass", threshold=0.5, steps=1, micro_batch=4)
    [whole] = log_of(accumulated)
    assert whole["tokens_trained"] == row["tokens_trained"]
    assert whole["grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-4)


def test_a_schedule_a_length_in_tokens_and_a_held_out_score_set(
    here: Callable[..., Any], scores: dict[str, Path], make_model: Callable[[int], Path]
) -> None:
    run, totals = here(
        schedule="wsd", warmup=0.2, decay=0.3, steps=None, tokens=10 * 4 * BLOCK, eval=(f"held={scores['base']}",),
        eval_every=5,
    )  # fmt: skip
    assert totals["steps"] == 10
    rates = [row["learning_rate"] for row in log_of(run)]
    assert rates[0] < rates[1] < rates[2]
    assert rates[2:8] == [1e-2] * 6
    assert rates[7] > rates[8] > rates[9] > 0
    rows = pq.read_table(run / "eval.parquet").to_pylist()
    whole = {row["step"]: row for row in rows if row["group"] is None}
    assert sorted(whole) == [0, 5, 10]
    assert {row["group"] for row in rows} == {None, *"abc"}
    # the held-out set was scored by the model that the run begins with, in windows as long as half a block
    store = ScoreSet.open(str(scores["base"]))
    assert whole[0]["tokens"] == store.summary["losses"]
    assert whole[0]["loss"] == pytest.approx(store.summary["total_nats"] / store.summary["losses"], abs=0.3)
    assert whole[0]["bits_per_byte"] > 0


def test_a_run_that_diverges_ends_with_the_reason(here: Callable[..., Any]) -> None:
    with pytest.raises(RhoScoreError, match="not a number any more at step"):
        here(learning_rate=1e30, max_grad_norm=0.0, steps=8)


@pytest.mark.parametrize("pick", ["random", "high-loss", "low-reference"])
def test_the_controls_train_on_as_many_tokens(here: Callable[..., Any], pick: str) -> None:
    run, totals = here(ratio=0.3, pick=pick, steps=2)
    rows = log_of(run)
    assert totals["tokens_trained"] == pytest.approx(0.3 * totals["tokens_seen"], rel=0.05)
    if pick == "high-loss":
        assert rows[0]["loss_kept"] > rows[0]["loss_dropped"]


def test_a_selections_mask_is_what_is_trained_on(
    here: Callable[..., Any], scores: dict[str, Path], tmp_path: Path
) -> None:
    chosen = str(tmp_path / "selection")
    kept = select(SelectConfig(output=chosen, ref=(str(scores["ref"]),), base=str(scores["base"]), ratio=0.5)).total
    run, totals = here(selection=chosen, steps=None, epochs=1.0, batch_tokens=BLOCK, micro_batch=1)
    assert totals["tokens_trained"] == kept.tokens_kept
    selection = Selection.open(chosen)
    rows = [row for unit in selection.units for row in selection.unit_table(unit.unit).to_pylist()]
    assert totals["tokens_seen"] == sum(len(row["input_ids"]) for row in rows if any(row["mask"]))
    assert log_of(run)[-1]["loss_dropped"] is None


def test_the_weights_of_a_selection_weigh_the_losses(
    here: Callable[..., Any], cache: str, scores: dict[str, Path], make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    chosen = str(tmp_path / "selection")
    select(SelectConfig(output=chosen, ref=(str(scores["ref"]),), ratio=0.5, weights="sigmoid", temperature=0.2))
    run, _ = here(selection=chosen, weighted=True, steps=1)
    blocks = ScoredBlocks(chosen, block_size=BLOCK, cache=cache, weighted=True)
    order = Order(len(blocks), 0)
    model = AutoModelForCausalLM.from_pretrained(make_model(2), dtype=torch.float32).eval()
    total, divisor, n_trained = torch.zeros(()), 0.0, 0
    for place in range(4):
        row = blocks[order.at(place)]
        logits = model(row["input_ids"][None], position_ids=row["position_ids"][None], use_cache=False).logits[0]
        losses = torch.nn.functional.cross_entropy(logits[:-1], row["input_ids"][1:], reduction="none")
        weight = row["weight"][1:]
        assert torch.equal(weight > 0, row["labels"][1:] != IGNORED)
        total = total + (losses * weight).sum()
        divisor += float(weight.sum())
        n_trained += int((weight > 0).sum())
    assert 0 < divisor < n_trained
    (total / divisor).backward()
    [logged] = log_of(run)
    assert logged["tokens_trained"] == n_trained
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert logged["grad_norm"] == pytest.approx(float(norm), rel=1e-3)
    flat = {
        doc: weights
        for unit in Selection.open(chosen).units
        for doc, weights in zip(
            *(Selection.open(chosen).unit_table(unit.unit)[name].to_pylist() for name in ("doc_id", "weight")),
            strict=True,
        )
    }
    every = np.concatenate([row["weight"].numpy() for row in (blocks[i] for i in range(len(blocks)))])
    assert float(every.sum()) == pytest.approx(sum(map(sum, flat.values())), rel=1e-5)
    with pytest.raises(InputError, match="is no selection, so it has no weights"):
        ScoredBlocks(str(scores["ref"]), block_size=BLOCK, cache=cache, weighted=True)


def test_a_model_from_scratch_on_text_and_its_held_out_loss(
    here: Callable[..., Any], corpus: Path, make_model: Callable[[int], Path]
) -> None:
    run, totals = here(
        text=str(corpus), from_scratch=True, steps=30, eval=(f"held={corpus}",), group_column="source", eval_every=10
    )
    rows = pq.read_table(run / "eval.parquet").to_pylist()
    assert {(row["step"], row["group"]) for row in rows} == {(s, g) for s in (0, 10, 20, 30) for g in (None, *"abc")}
    whole = {row["step"]: row for row in rows if row["group"] is None}
    assert whole[30]["loss"] < whole[0]["loss"]
    assert whole[30]["tokens"] == sum(row["tokens"] for row in rows if row["step"] == 30 and row["group"])
    model = AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.float32)
    assert AutoTokenizer.from_pretrained(run / "model").eos_token_id is not None
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()
    assert totals["tokens_seen"] == totals["tokens_trained"]


def test_the_trained_model_is_scored(here: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    run, _ = here(ratio=0.6, steps=2)
    summary = score(
        ScoreConfig(
            input=str(corpus), output=str(tmp_path / "again"), model=str(run / "model"), compile=False, gpus_per_worker=0,
            cpus_per_worker=1, dtype="float32", context=32,
        )
    )  # fmt: skip
    assert summary.counts.tokens > 0


def test_one_rank_and_two_read_the_same_blocks_at_each_step() -> None:
    order, n_steps, batch = Order(37, seed=5), 20, 8

    def of_step(n_ranks: int, micro: int, step: int) -> list[int]:
        ranks = [RankPlaces(n_steps=n_steps, batch=batch, micro=micro, rank=r, n_ranks=n_ranks) for r in range(n_ranks)]
        share = batch // n_ranks
        return [order.at(rank[i]) for rank in ranks for i in range(step * share, (step + 1) * share)]

    for step in range(n_steps):
        wanted = [order.at(place) for place in range(step * batch, (step + 1) * batch)]
        assert of_step(1, 8, step) == wanted
        for n_ranks, micro in ((1, 2), (2, 4), (2, 2), (4, 1), (8, 1)):
            assert sorted(of_step(n_ranks, micro, step)) == sorted(wanted)
    every = [order.at(place) for place in range(37)]
    assert sorted(every) == list(range(37))
    assert [order.at(37 + place) for place in range(37)] != every


CODE = """
import sys
from pathlib import Path
from tests.ray.test_train import config_of
from rho_score.training.checkpoints import checkpoints
from rho_score.training.job import train
output, model, cache, ref, scope = sys.argv[1:]
train(config_of(Path(output), Path(model), cache, {"ref": Path(ref)}, steps=40, ratio=0.5, scope=scope))
"""


@pytest.mark.parametrize("scope", ["micro", "ema"])
def test_a_killed_run_ends_with_the_same_weights(
    here: Callable[..., Any], cache: str, make_model: Callable[[int], Path], scores: dict[str, Path], tmp_path: Path,
    scope: str,
) -> None:  # fmt: skip
    command = [
        sys.executable,
        "-c",
        CODE,
        str(tmp_path / "killed"),
        str(make_model(2)),
        cache,
        str(scores["ref"]),
        scope,
    ]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(command, env=environment)
    end = time.monotonic() + 120
    while not (tmp_path / "killed/checkpoints/step-00000006/complete.json").exists():
        assert time.monotonic() < end, "no checkpoint was written"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "_SUCCESS.json").exists()
    subprocess.run(command, env=environment, check=True)
    undisturbed = [*command[:3], str(tmp_path / "calm"), *command[4:]]
    subprocess.run(undisturbed, env=environment, check=True)
    calm, killed = weights(tmp_path / "calm"), weights(tmp_path / "killed")
    assert all(torch.equal(calm[name], killed[name]) for name in calm)
    for row, other in zip(log_of(tmp_path / "calm"), log_of(tmp_path / "killed"), strict=True):
        assert {**row, "seconds": 0, "tokens_per_second": 0} == {**other, "seconds": 0, "tokens_per_second": 0}


def test_two_workers_and_a_death_among_them(
    here: Callable[..., Any], ray_cluster: str, cache: str, make_model: Callable[[int], Path], scores: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    one, _ = here("one", ratio=0.5, steps=12, micro_batch=4)
    output = tmp_path / "two"
    config = config_of(output, make_model(2), cache, scores, ratio=0.5, steps=12, micro_batch=2, workers=2)
    killed: list[int] = []

    def kill() -> None:
        end = time.monotonic() + 120
        while not list(output.glob("checkpoints/*/complete.json")) and time.monotonic() < end:
            time.sleep(0.02)
        workers = [
            a for a in list_actors(filters=[("state", "=", "ALIVE")], detail=True) if "RayTrainWorker" in a.class_name
        ]
        os.kill(workers[-1].pid, signal.SIGKILL)
        killed.append(workers[-1].pid)

    thread = threading.Thread(target=kill)
    thread.start()
    summary = train(config)
    thread.join()
    assert killed, "no worker was found to be killed"
    assert summary.steps == 12
    for row, other in zip(log_of(one), log_of(output), strict=True):
        assert row["tokens_trained"] == other["tokens_trained"]
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-3)
    ours, theirs = weights(one), weights(output)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3, err_msg=name)
    assert train(config).computed == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": None}, "exactly one of --steps"),
        ({"epochs": 1.0}, "exactly one of --steps"),
        ({"text": "corpus", "selection": "selection"}, "exactly one of --text"),
        ({"ratio": 1.5}, "--ratio must be above 0"),
        ({"ratio": 0.5, "threshold": 1.0}, "exclude each other"),
        ({"threshold": float("nan")}, "finite"),
        ({"pick": "random"}, "--pick needs --ratio"),
        ({"scope": "ema"}, "--scope ema needs --ratio"),
        ({"combine": "mean"}, "several --scores"),
        ({"merge": True}, "--merge needs --lora-rank"),
        ({"weighted": True}, "--weighted is for --selection"),
        ({"block_size": 128}, "beyond the 64 positions"),
        ({"batch_tokens": 3 * BLOCK, "workers": 2}, "Give 128 or 256"),
        ({"micro_batch": 3}, "does not divide the 4 rows"),
        ({"fsdp": True}, "--fsdp needs several --workers"),
        ({"fsdp": True, "workers": 2, "lora_rank": 2}, "does not go with --lora-rank"),
        ({"schedule": "wsd", "warmup": 0.5, "decay": 0.6}, "must not be above 1 together"),
        ({"gpus_per_worker": 2}, "must be 0 or 1"),
        ({"warmup": 2.0}, "share of the steps"),
        ({"learning_rate": -1.0}, "must not be negative"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    changes: dict[str, Any], words: str, cache: str, make_model: Callable[[int], Path], scores: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(InputError, match=words):
        train(config_of(tmp_path / "run", make_model(2), cache, scores, **changes))
    assert not (tmp_path / "run").exists()


def test_scores_of_another_tokenizer_an_unfinished_set_and_another_runs_output_are_refused(
    cache: str, make_model: Callable[[int], Path], scores: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    AutoModelForCausalLM.from_pretrained(make_model(2)).save_pretrained(other)
    tokenizer = AutoTokenizer.from_pretrained(make_model(2))
    tokenizer.add_tokens(["one-more"])
    tokenizer.save_pretrained(other)
    with pytest.raises(InputError, match="another tokenizer"):
        train(config_of(tmp_path / "run", other, cache, scores))
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for name in ("manifest.json", "plan.parquet"):
        (unfinished / name).write_bytes((scores["ref"] / name).read_bytes())
    with pytest.raises(InputError, match="not finished"):
        train(config_of(tmp_path / "run", make_model(2), cache, {"ref": unfinished}))
    with pytest.raises(InputError, match="another kind of store"):
        train(config_of(scores["ref"], make_model(2), cache, scores))
    assert not (tmp_path / "run").exists()


def test_a_run_has_a_page_and_its_scores_know_it(
    here: Callable[..., Any], corpus: Path, scores: dict[str, Path], tmp_path: Path
) -> None:
    options = {"eval": (f"held={corpus}",), "group_column": "source", "eval_every": 3}
    selected, _ = here("selected", ratio=0.5, **options)
    every, _ = here("every", **options)
    page = tmp_path / "run.html"
    report(ReportConfig(store=str(selected), output=str(page), compare=(str(every),)))
    text = page.read_text()
    assert all(words in text for words in ("Training runs", "Held-out loss", "selected", "every", "Threshold"))
    assert text.count("data:image/svg+xml") >= 5
    assert (selected / "tensorboard" / "events.out.tfevents.00000000").stat().st_size > 1000
    score(
        ScoreConfig(
            input=str(corpus), output=str(tmp_path / "again"), model=str(selected / "model"), compile=False,
            gpus_per_worker=0, cpus_per_worker=1, dtype="float32", context=32, id_column="id", group_column="source",
        )
    )  # fmt: skip
    run = TrainingRun.open(str(selected))
    assert ScoreSet.open(str(tmp_path / "again")).manifest["training_run"]["fingerprint"] == run.manifest["fingerprint"]
    lines = ancestry(Folder(str(tmp_path / "again")))
    assert f"training run {run.manifest['fingerprint'][:12]}" in lines[1]
    assert any(f"score set {ScoreSet.open(str(scores['ref'])).manifest['fingerprint'][:12]}" in line for line in lines)
    with pytest.raises(InputError, match="for training runs"):
        report(ReportConfig(store=str(scores["ref"]), output=str(page), compare=(str(every),)))


def test_several_references_and_documents_within_a_selection(
    here: Callable[..., Any], scores: dict[str, Path], tmp_path: Path
) -> None:
    inside = str(tmp_path / "documents")
    kept = select(
        SelectConfig(output=inside, ref=(str(scores["ref"]),), base=str(scores["base"]), ratio=0.3, level="document")
    ).total
    both = (f"a={scores['ref']}", f"b={scores['base']}")
    _, totals = here(
        scores=both, combine="mean", within=inside, steps=None, epochs=1.0, micro_batch=1, batch_tokens=BLOCK
    )
    assert totals["tokens_seen"] == kept.tokens_kept  # every token of the documents that are kept
    files = ScoredBlocks({"a": str(scores["ref"]), "b": str(scores["base"])}, block_size=BLOCK, within=inside).files
    one = ScoredBlocks(str(scores["ref"]), block_size=BLOCK, within=inside).files
    other = ScoredBlocks(str(scores["base"]), block_size=BLOCK, within=inside).files
    np.testing.assert_array_equal(files.ref_loss, np.fmin(one.ref_loss, other.ref_loss))
    assert files.counts.documents == kept.documents_kept


@pytest.mark.parametrize("merge", [True, False])
def test_an_adapter_is_trained_and_merged(
    here: Callable[..., Any], make_model: Callable[[int], Path], merge: bool
) -> None:
    run, _ = here(ratio=0.5, lora_rank=2, merge=merge, steps=3, gradient_checkpointing=True)
    assert (run / "model" / "adapter_config.json").exists() is not merge
    if merge:
        before = load_file(make_model(2) / "model.safetensors")
        after = weights(run)
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[name], after[name]) for name in before)


def test_gradient_checkpointing_and_bfloat16_change_little(here: Callable[..., Any]) -> None:
    plain, _ = here("plain", ratio=0.5, steps=3)
    again, _ = here("again", ratio=0.5, steps=3, gradient_checkpointing=True)
    half, _ = here("half", ratio=0.5, steps=3, dtype="bfloat16")
    for row, other, rough in zip(log_of(plain), log_of(again), log_of(half), strict=True):
        assert row["loss_kept"] == pytest.approx(other["loss_kept"], rel=1e-6)
        assert row["loss_kept"] == pytest.approx(rough["loss_kept"], rel=0.05)


def test_weights_that_have_other_names_in_files_are_resumed(
    here: Callable[..., Any], make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    config = GPTNeoXConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "neox")
    AutoTokenizer.from_pretrained(make_model(2)).save_pretrained(tmp_path / "neox")
    calm, _ = here("calm", model=str(tmp_path / "neox"), ratio=0.5)
    again, _ = here("again", model=str(tmp_path / "neox"), ratio=0.5)
    (again / "model" / "model.safetensors").unlink()
    for name in sorted((again / "checkpoints").iterdir())[-1:]:
        shutil.rmtree(name)
    assert [found.step for found in checkpoints(Folder(str(again)))] == [2]
    _, totals = here("again", model=str(tmp_path / "neox"), ratio=0.5)
    assert totals["resumed_at"] == 2
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(calm).items())


def _sharded(rank: int) -> dict[str, Any]:
    """One rank of a run whose weights are sharded; see `test_sharded_weights_train_as_copies_do`."""
    output, model, cache, ref, dtype = os.environ["RHO_SHARDED"].split(":")
    sets = {"ref": Path(ref)}
    config = config_of(Path(output), Path(model), cache, sets, ratio=0.5, workers=2, fsdp=True, dtype=dtype)
    settings, manifest = resolve_settings(config, gpu_here=False)
    if rank == 0:
        claim(Folder(config.output), manifest, {})
    Ranks().barrier()
    return train_worker(settings, lambda *_: None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sharded_weights_train_as_copies_do(
    here: Callable[..., Any], cache: str, make_model: Callable[[int], Path], scores: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, dtype: str,
) -> None:  # fmt: skip
    one, _ = here("one", ratio=0.5, micro_batch=4, dtype=dtype)
    output = tmp_path / "sharded"
    monkeypatch.setenv("RHO_SHARDED", f"{output}:{make_model(2)}:{cache}:{scores['ref']}:{dtype}")
    on_two_ranks(_sharded)
    for row, other in zip(log_of(one), log_of(output), strict=True):
        assert (row["tokens_seen"], row["tokens_trained"]) == (other["tokens_seen"], other["tokens_trained"])
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-3 if dtype == "float32" else 0.1)
    for name, value in weights(one).items() if dtype == "float32" else ():
        np.testing.assert_allclose(value, weights(output)[name], atol=2e-3, err_msg=name)


def test_object_storage_gets_the_same_run_and_its_checkpoints(
    here: Callable[..., Any], cache: str, make_model: Callable[[int], Path], scores: dict[str, Path], tmp_path: Path
) -> None:
    calm, _ = here(ratio=0.5)
    there = Folder(f"s3://rho/train-{tmp_path.name}")
    config = config_of(Path("x"), make_model(2), cache, scores, ratio=0.5)
    config = replace(config, output=there.url, keep=1)
    settings, manifest = resolve_settings(config, gpu_here=False)
    claim(there, manifest, {})
    started: list[int] = []

    def stop_at_five(phase: str, step: int, n_steps: int) -> None:
        started.append(step)
        if step == 5 and not phase and started.count(5) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_worker(settings, stop_at_five)
    assert [found.step for found in checkpoints(there)] == [4]
    totals = train_worker(settings, stop_at_five)
    assert totals["resumed_at"] == 4
    there.fetch_file("model/model.safetensors", tmp_path / "model.safetensors")
    found = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(value, found[name]) for name, value in weights(calm).items())
    assert TrainingRun.open(there.url).log().column("loss").equals(TrainingRun.open(str(calm)).log().column("loss"))
