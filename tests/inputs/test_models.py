"""Every kind of model: what cannot be scored with is refused, with its name and the remedy; nothing is written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rho_score.cli import main
from rho_score.errors import InputError
from rho_score.inference.scorer import Scorer
from rho_score.models.tokenizer import load_tokenizer, prefix_id
from tests.inputs.model_kinds import MODELS, ModelKind
from tests.oracle import load_float32, plain_losses

IDS = np.arange(50) % 97 + 3


@pytest.fixture
def model(tmp_path: Path, make_model: Callable[[int], Path]) -> Path:
    return Path(shutil.copytree(make_model(1), tmp_path / "model"))


def _kinds(*, refused: bool, at_load: bool = False) -> list[ModelKind]:
    return [kind for kind in MODELS if bool(kind.words) == refused and kind.at_load == at_load]


def _says(kind: ModelKind, message: str, model: Path) -> None:
    for word in kind.words:
        assert word.format(model=model) in message
    assert "Traceback" not in message


@pytest.mark.parametrize("kind", _kinds(refused=True), ids=lambda kind: kind.name)
def test_a_wrong_model_is_refused_before_anything_is_run(
    kind: ModelKind, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    kind.spoil(model)
    assert main(["score", str(tmp_path / "a.jsonl"), str(tmp_path / "out"), "--model", str(model)]) == 2
    _says(kind, capsys.readouterr().err, model)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", _kinds(refused=True, at_load=True), ids=lambda kind: kind.name)
def test_weights_that_are_not_the_models_are_refused_as_it_loads(kind: ModelKind, model: Path) -> None:
    kind.spoil(model)
    with pytest.raises(InputError) as error:
        Scorer(str(model), dtype="float32", context=32, overlap=8, prefix_id=0)
    _says(kind, str(error.value), model)


@pytest.mark.parametrize("kind", _kinds(refused=False), ids=lambda kind: kind.name)
def test_what_is_scored_with_gives_the_losses_of_a_plain_forward(kind: ModelKind, model: Path) -> None:
    kind.spoil(model)
    prefix = prefix_id(load_tokenizer(str(model)))
    scorer = Scorer(str(model), dtype="float32", context=32, overlap=8, prefix_id=prefix)
    expected = plain_losses(load_float32(model), IDS.tolist(), prefix=prefix, context=32, overlap=8)
    (loss,) = scorer.score_documents([IDS])
    np.testing.assert_allclose(loss, expected, atol=2e-4)
    assert np.isnan(loss[0]) == ("without BOS" in kind.name)
