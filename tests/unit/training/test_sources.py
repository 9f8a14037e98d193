"""Which tokens of a store a run may train on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rho_score.config import TrainConfig
from rho_score.errors import InputError
from rho_score.training.settings import resolve_settings
from rho_score.training.sources import ScoreSource
from tests.stores import Doc, write_scores

DOCUMENTS = [Doc("a", None, [1, 2, 3], [None, 0.5, None]), Doc("b", None, [4, 5], [None, 1.0])]


@pytest.mark.parametrize(
    ("parts", "targets"),
    [
        ({}, [True] * 5),  # the first token has no loss because nothing is before it
        ({"content_kind": "messages", "roles": ["assistant"]}, [False, True, False, False, True]),
        ({"content_kind": "response", "context_column": "prompt"}, [False, True, False, False, True]),
    ],
)
def test_context_is_no_target(parts: dict[str, Any], targets: list[bool], tmp_path: Path) -> None:
    scores = write_scores(tmp_path / "scores", [[DOCUMENTS]], grouped=False, **parts)
    found = ScoreSource({"ref": str(scores)}).read(0)
    assert found.documents.mask.tolist() == targets


@pytest.mark.parametrize("option", ["text", "eval"])
def test_files_of_token_ids_are_named_with_the_command_that_reads_them(
    option: str, tmp_path: Path, make_model: Callable[[int], Path]
) -> None:
    """`train` itself has no --token-files."""
    (tmp_path / "ids").mkdir()
    (tmp_path / "ids" / "a.bin").write_bytes(bytes(8))
    (tmp_path / "a.jsonl").write_text('{"text": "some words"}\n')
    places = (
        {"text": f"{tmp_path}/ids"}
        if option == "text"
        else {"text": f"{tmp_path}/a.jsonl", "eval": (f"{tmp_path}/ids",)}
    )
    config = TrainConfig(model=str(make_model(1)), output=f"{tmp_path}/run", steps=1, block_size=16, **places)
    with pytest.raises(
        InputError, match=r"are no text: score them with `rho-score score --token-files`, and give the score"
    ):
        resolve_settings(config, gpu_here=False)
