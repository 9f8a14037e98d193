"""The examples run, each for a few steps on a tiny model, and short enough to be read."""

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rho_score.config import ExportConfig, SelectConfig
from rho_score.exporting.job import export
from rho_score.selecting.job import select
from tests.ray.conftest import score_into, scores  # noqa: F401

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs an example in a folder of its own; returns what it printed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture
def selection(scores: dict[str, Path], tmp_path: Path) -> Path:  # noqa: F811
    """Half of the tokens."""
    chosen = tmp_path / "selection"
    select(SelectConfig(output=str(chosen), ref=(str(scores["ref"]),), base=str(scores["base"]), ratio=0.5))
    return chosen


def exported(store: Path, output: Path, **options: object) -> Path:
    """An export."""
    export(ExportConfig(selection=str(store), output=str(output), **options))  # type: ignore[arg-type]
    return output


def test_every_example_is_short_and_tested() -> None:
    named = set(re.findall(r'run\(\s*"(\w+)"', Path(__file__).read_text()))
    files = {path.stem: path for path in EXAMPLES.glob("*.py")}
    assert named == set(files)
    assert all(len(path.read_text().splitlines()) <= 60 for path in files.values())


def moved(model: Path, trained: Path) -> bool:
    """Whether the trained weights are others."""
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (model, trained))
    return any(not torch.equal(before[name], after[name]) for name in before)


def test_plain_pytorch(
    run: Callable[..., str], scores: dict[str, Path], make_model: Callable[[int], Path], tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    said = run("plain_pytorch", make_model(2), scores["ref"], tmp_path / "out", "--steps", 2, "--block-size", 48)
    losses = [float(found) for found in re.findall(r"selected tokens ([\d.]+)", said)]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert moved(make_model(2), tmp_path / "out")


def test_trl_dpo(run: Callable[..., str], ray_cluster: str, make_model: Callable[[int], Path], tmp_path: Path) -> None:
    rows = [{"prompt": "the model", "chosen": f" learns {i}", "rejected": " a loss"} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"prompt_column": "prompt", "chosen_column": "chosen", "rejected_column": "rejected"}
    score_into(
        tmp_path / "pairs.jsonl", tmp_path / "scores", make_model(1), id_column=None, group_column=None, **columns
    )
    run(
        "trl_dpo",
        make_model(2),
        exported(tmp_path / "scores", tmp_path / "dpo", format="dpo"),
        tmp_path / "out",
        "--steps",
        2,
    )
    assert moved(make_model(2), tmp_path / "out")


def test_hf_trainer(
    run: Callable[..., str], selection: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:  # fmt: skip
    rows = exported(selection, tmp_path / "train", format="labels", block_size=48)
    run("hf_trainer", make_model(2), rows, tmp_path / "out", "--steps", 2)
    assert moved(make_model(2), tmp_path / "out")


def test_trl_sft(
    run: Callable[..., str], scores: dict[str, Path], make_model: Callable[[int], Path], tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    rows = exported(scores["ref"], tmp_path / "train", format="labels", block_size=48, columns=("ref-loss",))
    run("trl_sft", make_model(2), rows, tmp_path / "out", "--steps", 2)
    assert moved(make_model(2), tmp_path / "out")


def test_nanogpt(
    run: Callable[..., str], selection: Path, make_model: Callable[[int], Path], tmp_path: Path
) -> None:  # fmt: skip
    data = exported(selection, tmp_path / "train", format="bin")
    said = run("nanogpt", make_model(2), data, "--steps", 2, "--block-size", 32)
    assert len(re.findall(r"loss ([\d.]+)", said)) == 2


def test_megatron_dataset(run: Callable[..., str], selection: Path, tmp_path: Path) -> None:
    data = exported(selection, tmp_path / "train", format="megatron")
    said = run("megatron_dataset", data / "data" / "part-00000", 32)
    n_samples, n_kept = map(int, re.findall(r"\d+", said))
    tokens = np.fromfile(data / "data/part-00000.bin", np.uint16)
    mask = np.fromfile(data / "data/part-00000_mask.bin", np.uint8)
    assert n_samples == (len(tokens) - 1) // 32
    assert n_kept == mask[1 : n_samples * 32 + 1].sum()


def test_torchtitan_dataset(run: Callable[..., str], selection: Path, tmp_path: Path) -> None:
    rows = exported(selection, tmp_path / "train", format="labels", block_size=48)
    said = run("torchtitan_dataset", rows)
    counts = json.loads((rows / "_SUCCESS.json").read_bytes())["counts"]
    assert said.split(", ")[1] == f"{counts['tokens_trained']} tokens to train on\n"
    module = runpy.run_path(str(EXAMPLES / "torchtitan_dataset.py"))
    data = module["SelectedTokens"](str(rows), infinite=False)
    first = [next(iter(data)) for _ in range(3)]
    again = module["SelectedTokens"](str(rows), infinite=False)
    again.load_state_dict({"at": 2})
    inputs, labels = next(iter(again))
    assert torch.equal(inputs["input"], first[2][0]["input"])
    assert torch.equal(labels, first[2][1])
    assert len(inputs["input"]) == len(inputs["positions"]) == len(labels) == 47
