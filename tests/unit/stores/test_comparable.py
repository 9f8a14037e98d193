"""Which score sets are compared token by token: what the model saw, and what the values are."""

from pathlib import Path
from typing import Any

import pytest

from rho_score.config import SelectConfig
from rho_score.errors import InputError
from rho_score.selecting.job import select
from rho_score.stores.comparable import comparable
from rho_score.stores.score_set import ScoreSet, require_context, require_losses
from rho_score.stores.selection import Selection
from tests.stores import Doc, random_documents, write_scores

BEHIND = {"content_kind": "response", "text_column": "response", "context_column": "prompt"}
ALONE = BEHIND | {"context_hidden": True, "hidden_prefix_id": 0}
KL = {"derived": {"from": "kl", "direction": "KL(base || ref)"}}


def _open(folder: Path, name: str, parts: dict[str, Any]) -> ScoreSet:
    return ScoreSet.open(str(write_scores(folder / name, [[[Doc("d", "g", [1, 2], [None, 1.0])]]], **parts)))


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (BEHIND, ALONE, r"right was made with --hide-context and .*left without.*`rho-score select` alone takes both"),
        (ALONE, BEHIND, r"left was made with --hide-context and .*right without"),
        (ALONE, ALONE | {"hidden_prefix_id": 1}, r"hidden_prefix_id: a 0, b 1"),
        ({}, KL, r"one holds losses in nats, the other divergences\. Select from each by itself"),
        ({"unit": "other"}, KL, r"one holds imported values of another unit, the other divergences"),
        ({}, {"tokenizer_sha256": "u"}, r"tokenizer_sha256.*\n.*use `rho-score select --align bytes`"),
        (BEHIND, BEHIND, None),
        (ALONE, ALONE, None),
        (KL, KL, None),
    ],
)
def test_losses_behind_other_contexts_and_other_values_are_not_mixed(
    left: dict[str, Any], right: dict[str, Any], message: str | None, tmp_path: Path
) -> None:
    sets = (_open(tmp_path, "left", left), _open(tmp_path, "right", right))
    if message is None:
        comparable(*sets, ("a", "b"))
        return
    with pytest.raises(InputError, match=message):
        comparable(*sets, ("a", "b"))


def test_a_selection_ranks_by_what_the_context_tells(tmp_path: Path) -> None:
    """The one command that takes both ways; but not two sets whose hidden contexts were replaced by different tokens."""
    alone, behind = zip(*random_documents(20, seed=4), strict=True)
    sets = {
        "alone": write_scores(tmp_path / "alone", [[list(alone)]], **ALONE),
        "behind": write_scores(tmp_path / "behind", [[list(behind)]], **BEHIND),
        "other": write_scores(tmp_path / "other", [[list(behind)]], **(ALONE | {"hidden_prefix_id": 7})),
    }
    select(SelectConfig(output=f"{tmp_path}/gain", ref=(str(sets["behind"]),), base=str(sets["alone"]), threshold=0.5))
    gain = Selection.open(f"{tmp_path}/gain")
    kept = [row["mask"] for unit in gain.units for row in gain.unit_table(unit.unit).to_pylist()]
    expected = [
        [(x or 0) - (y or 0) >= 0.5 for x, y in zip(one.loss, other.loss, strict=True)]
        for one, other in zip(alone, behind, strict=True)
    ]
    assert kept == expected
    assert any(map(any, expected))
    with pytest.raises(InputError, match="hidden_prefix_id"):
        select(SelectConfig(output=f"{tmp_path}/out", ref=(str(sets["other"]),), base=str(sets["alone"]), ratio=0.5))


def test_what_a_command_needs_is_named(tmp_path: Path) -> None:
    for name, parts in (("usual", {}), ("behind", BEHIND)):
        scores = _open(tmp_path, name, parts)
        require_losses(scores, "it")
        require_context(scores, "it")
    with pytest.raises(InputError, match=r"it needs losses, but .*kl holds divergences of two models"):
        require_losses(_open(tmp_path, "kl", KL), "it")
    with pytest.raises(InputError, match=r"it needs losses in nats, but .*other holds imported values"):
        require_losses(_open(tmp_path, "other", {"unit": "other"}), "it")
    with pytest.raises(
        InputError, match=r"it needs the losses of tokens behind their context, but .*alone was made with"
    ):
        require_context(_open(tmp_path, "alone", ALONE), "it")
