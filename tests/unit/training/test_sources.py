"""Which tokens of a store a run may train on."""

from pathlib import Path
from typing import Any

import pytest

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
