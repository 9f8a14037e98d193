"""A model's directory is hostile: no pickle is loaded, and no code of it runs unless it was asked for."""

import contextlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rho_score.cli import main
from rho_score.errors import InputError
from rho_score.models.load import ModelSource, load_model
from rho_score.models.model_config import load_config
from rho_score.models.tokenizer import load_tokenizer
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.tokenizer import load_store_tokenizer
from tests.stores import write_scores

PACKAGE = Path(__file__).parents[2] / "rho_score"


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return os.system, (f"touch {self.canary}",)


@pytest.fixture
def directory(make_model: Callable[[int], Path], tmp_path: Path) -> Path:
    """A model that loads, to be spoilt."""
    shutil.copytree(make_model(1), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that is made where code ran."""
    return tmp_path / "canary"


def _load(directory: Path) -> Any:
    return load_model(ModelSource(model=str(directory)), torch.float32, torch.device("cpu"))


def _change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_bomb_works(canary: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(canary)))
    assert canary.exists()


def test_pickled_weights_are_refused(directory: Path, canary: Path, tmp_path: Path, corpus: Path) -> None:
    (directory / "model.safetensors").unlink()
    torch.save({"weight": Bomb(canary)}, directory / "pytorch_model.bin")
    with pytest.raises(InputError, match="Pickled weights are never loaded"):
        _load(directory)
    assert main(["score", str(corpus), str(tmp_path / "out"), "--model", str(directory)]) == 2
    assert not canary.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["named in config", "named in an index", "outside, in an index", "beside an adapter"])
def test_other_ways_to_a_pickle_are_refused(directory: Path, canary: Path, how: str) -> None:
    bomb = directory / "adapter_model.bin"
    torch.save({"weight": Bomb(canary)}, bomb)
    if how == "named in config":
        _change(directory / "config.json", transformers_weights="adapter_model.bin")
    elif how == "beside an adapter":
        base = shutil.copytree(directory, directory.parent / "base")
        (base / "adapter_model.bin").unlink()
        adapter = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 1, "target_modules": ["q_proj"]}
        (directory / "adapter_config.json").write_text(json.dumps(adapter))
    else:
        (directory / "model.safetensors").rename(directory / "model-00001-of-00001.safetensors")
        name = "../model/adapter_model.safetensors" if how.startswith("outside") else "adapter_model.bin"
        index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": name}}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"are (ever|never) loaded"):
        _load(directory)
    assert not canary.exists()


def test_pickles_beside_safetensors_stay_untouched(directory: Path, canary: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.pkl", "vocab.pkl"):
        torch.save(Bomb(canary), directory / name)
    (directory / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model.bin"}}')
    _load(directory)
    load_tokenizer(str(directory))
    assert not canary.exists()


CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
Path({canary!r}).touch()
class Config(LlamaConfig):
    model_type = "mine"
class Model(LlamaForCausalLM):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


def _with_code(directory: Path, canary: Path) -> None:
    (directory / "mine.py").write_text(CODE.format(canary=str(canary)))
    _change(
        directory / "config.json",
        model_type="mine",
        auto_map={"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"},
    )


def test_code_of_a_model_is_refused_and_the_option_named(
    directory: Path, canary: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _with_code(directory, canary)
    assert main(["score", str(corpus), str(tmp_path / "out"), "--model", str(directory)]) == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    assert not canary.exists()
    load_config(str(directory), trust_remote_code=True)
    assert canary.exists()  # the canary would have told


@pytest.mark.parametrize("kind", ["Tokenizer", "unknown"])
def test_code_of_a_tokenizer_is_refused(
    directory: Path, canary: Path, corpus: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "mine.py").write_text(CODE.format(canary=str(canary)))
    _change(
        directory / "tokenizer_config.json",
        tokenizer_class="MineTokenizer" if kind == "unknown" else "PreTrainedTokenizerFast",
        auto_map={"AutoTokenizer": [None, "mine.Tokenizer"]},
    )
    main(["plan", str(corpus), "--model", str(directory)])
    assert "Traceback" not in capsys.readouterr().err
    assert not canary.exists()
    assert main(["plan", str(corpus), "--model", str(directory), "--trust-remote-code"]) == 0
    assert canary.exists()


def test_code_of_a_stores_tokenizer_never_runs(directory: Path, canary: Path, tmp_path: Path) -> None:
    _with_code(directory, canary)
    _change(directory / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "mine.Tokenizer"]})
    store = write_scores(tmp_path / "scores", [[[]]], tokenizer=directory)
    for name in ("mine.py", "config.json"):
        shutil.copy(directory / name, store / "tokenizer" / name)
    with contextlib.suppress(InputError):  # refused or loaded without it, as the library finds
        load_store_tokenizer(ScoreSet.open(str(store)))
    _change(store / "tokenizer" / "tokenizer_config.json", tokenizer_class="MineTokenizer")  # that no library has
    with pytest.raises(
        InputError, match=r"the code of a store is never run\. .* need a model that has a tokenizer\.json"
    ):
        load_store_tokenizer(ScoreSet.open(str(store)))
    assert not canary.exists()


def test_attention_from_a_hub_is_refused(directory: Path) -> None:
    _change(
        directory / "config.json", attn_implementation="someone/attention", _attn_implementation="someone/attention"
    )
    with pytest.raises(InputError, match="code from the Hugging Face hub"):
        _load(directory)


def test_the_package_has_no_way_to_load_a_pickle() -> None:
    """`cloudpickle` under Ray carries the run's own objects, which nobody else writes."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for word in (
            "import pickle",
            "pickle.load",
            "torch.load",
            "allow_pickle=True",
            "np.load",
            "joblib",
            "yaml.unsafe",
            "eval(",
            "exec(",
        ):
            assert word not in text.replace(".eval()", "").replace("ast.literal_eval(", ""), (path, word)


def test_a_tokenizer_is_fetched_without_the_weights(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def snapshot(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append([name, *allow_patterns])
        return str(directory)

    monkeypatch.setattr("rho_score.models.directory.snapshot_download", snapshot)
    load_tokenizer("org/model@main")
    load_config("org/model")
    assert ["*.safetensors" in patterns for patterns in asked] == [False, True]
