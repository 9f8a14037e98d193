"""The selective loss: equal to a plain top-k, divided by what is selected, on one rank and on two."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rho_score.errors import InputError
from rho_score.training.ranks import Ranks
from rho_score.training.selective_loss import SelectiveLoss
from tests.unit.training.gloo import on_two_ranks


def plain_top(scores: np.ndarray, eligible: np.ndarray, ratio: float) -> np.ndarray:
    """The oracle: a stable full sort of the eligible scores, of which the first round(ratio * n) are taken."""
    n_keep = round(ratio * int(eligible.sum()))
    order = np.lexsort((np.arange(len(scores)), -scores, ~eligible))
    mask = np.zeros(len(scores), bool)
    mask[order[:n_keep]] = True
    return mask


scores_with_ties = st.lists(
    st.one_of(
        st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5]), st.floats(-20, 20, width=32), st.floats(width=32, allow_nan=False)
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(scores=scores_with_ties, ratio=st.floats(0.01, 1), data=st.data())
def test_it_selects_what_a_full_sort_takes(scores: list[float], ratio: float, data: st.DataObject) -> None:
    eligible = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    values = np.array(scores, np.float32) + np.float32(0)  # -0.0 and 0.0 tie
    found = SelectiveLoss(ratio=ratio).select(torch.from_numpy(values), torch.from_numpy(eligible))
    expected = plain_top(values, eligible, ratio)
    np.testing.assert_array_equal(found.mask.numpy(), expected)
    assert int(found.n_selected) == expected.sum()
    assert float(found.threshold) == (values[expected].min() if expected.any() else math.inf)


def batch(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses with gradients, reference losses of which some are missing, and what is valid."""
    random = np.random.default_rng(seed)
    losses = torch.tensor(random.gamma(1, 2, n).astype(np.float32), requires_grad=True)
    reference = random.gamma(1, 2, n).astype(np.float32)
    reference[random.random(n) < 0.1] = np.nan
    return losses, torch.from_numpy(reference), torch.from_numpy(random.random(n) < 0.9)


def hand_mask(losses: torch.Tensor, reference: torch.Tensor, valid: torch.Tensor, ratio: float) -> np.ndarray:
    """What is to be selected, from numpy alone."""
    eligible = valid.numpy() & ~np.isnan(reference.numpy())
    return plain_top(losses.detach().numpy() - reference.numpy(), eligible, ratio)


def test_the_loss_and_its_gradient_are_those_of_a_masked_mean() -> None:
    losses, reference, valid = batch(200, 1)
    found = SelectiveLoss(ratio=0.6)(losses, reference, valid)
    found.backward()
    mask = hand_mask(losses, reference, valid, 0.6)
    assert float(found) == pytest.approx(losses.detach().numpy()[mask].mean(), rel=1e-6)
    np.testing.assert_allclose(losses.grad.numpy(), mask / mask.sum(), rtol=1e-6)


def test_under_accumulation_the_divisor_is_the_count_of_the_whole_step() -> None:
    selective = SelectiveLoss(ratio=0.5)
    parts = [batch(n, n) for n in (40, 7, 100, 1)]
    masks = [hand_mask(*part, 0.5) for part in parts]
    eligible = torch.tensor([int((valid & ~torch.isnan(ref)).sum()) for _, ref, valid in parts])
    divisor = selective.expected(eligible).sum()
    total = sum(mask.sum() for mask in masks)
    assert int(divisor) == total
    for part, mask in zip(parts, masks, strict=True):
        selective(*part, divisor=divisor).backward()
        np.testing.assert_allclose(part[0].grad.numpy(), mask / total, rtol=1e-6)


def test_a_missing_reference_is_never_selected() -> None:
    losses = torch.tensor([9.0, 1.0, 2.0], requires_grad=True)
    reference = torch.tensor([math.nan, 0.5, 0.5])
    SelectiveLoss(ratio=1.0)(losses, reference, torch.ones(3, dtype=torch.bool)).backward()
    assert losses.grad.tolist() == [0.0, 0.5, 0.5]


def test_a_model_that_diverged_is_not_hidden() -> None:
    losses = torch.tensor([math.nan, 1.0, 2.0, 3.0])
    found = SelectiveLoss(ratio=0.25)(losses, torch.zeros(4), torch.ones(4, dtype=torch.bool))
    assert math.isnan(float(found))


def test_without_eligible_tokens_the_loss_is_zero_and_has_gradients() -> None:
    losses = torch.tensor([1.0, 2.0], requires_grad=True)
    found = SelectiveLoss(ratio=0.5)(losses, torch.full((2,), math.nan), torch.ones(2, dtype=torch.bool))
    found.backward()
    assert float(found) == 0.0
    assert losses.grad.tolist() == [0.0, 0.0]


def test_a_threshold_selects_all_from_it_on() -> None:
    losses = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    found = SelectiveLoss(threshold=1.0)(losses, torch.tensor([0.5, 1.0, 1.0]), torch.ones(3, dtype=torch.bool))
    assert float(found) == 2.5


def test_ema_takes_the_threshold_of_earlier_calls() -> None:
    selective = SelectiveLoss(ratio=0.5, scope="ema", decay=0.75)
    every = torch.ones(4, dtype=torch.bool)
    first = selective.select(torch.tensor([1.0, 2.0, 3.0, 4.0]), every)
    assert first.mask.tolist() == [False, False, True, True]
    assert float(selective.ema) == 3.0
    second = selective.select(torch.tensor([2.9, 3.0, 7.0, 9.0]), every)
    assert second.mask.tolist() == [False, True, True, True]
    assert float(selective.ema) == 0.75 * 3.0 + 0.25 * 7.0
    third = selective.select(torch.tensor([1.0, 1.0, 1.0, 4.0]), torch.zeros(4, dtype=torch.bool))
    assert int(third.n_selected) == 0
    assert float(selective.ema) == 4.0


def test_it_compiles() -> None:
    losses, reference, valid = batch(300, 5)
    eager = SelectiveLoss(ratio=0.6)
    compiled = torch.compile(SelectiveLoss(ratio=0.6), fullgraph=True, backend="aot_eager")
    expected = eager(losses, reference, valid)
    found = compiled(losses, reference, valid)
    found.backward()
    np.testing.assert_allclose(float(found), float(expected), rtol=1e-6)
    mask = hand_mask(losses, reference, valid, 0.6)
    np.testing.assert_allclose(losses.grad.numpy(), mask / mask.sum(), rtol=1e-6)


def _half(rank: int) -> dict[str, Any]:
    """On one of two ranks: the loss and its gradient on half of a batch, plain and under accumulation."""
    selective = SelectiveLoss(ratio=0.6)
    losses, reference, valid = batch(200, 1)
    losses, at = losses.detach(), slice(100 * rank, 100 * rank + 100)
    ties = torch.tensor([1.0, 2.0, 2.0, 0.0])
    mine = losses[at].clone().requires_grad_()
    loss = selective(mine, reference[at], valid[at])
    loss.backward()
    tied = selective.select(ties, torch.ones(4, dtype=torch.bool))
    accumulated = torch.zeros(100)
    parts = [slice(0, 30), slice(30, 100)]
    eligible = (valid & ~torch.isnan(reference))[at]
    divisor = selective.expected(
        torch.tensor(
            [int((valid & ~torch.isnan(reference))[p.start + o : p.stop + o].sum()) for p in parts for o in (0, 100)]
        )
        .view(2, 2)
        .sum(dim=1)
    ).sum()
    for part in parts:
        some = losses[at][part].clone().requires_grad_()
        selective(some, reference[at][part], valid[at][part], divisor=divisor).backward()
        accumulated[part] = some.grad
    assert eligible.any()
    return {
        "loss": float(loss),
        "grad": mine.grad.numpy(),
        "accumulated": accumulated.numpy(),
        "tied": tied.mask.numpy(),
        "threshold": float(tied.threshold),
    }


@pytest.fixture(scope="module")
def halves() -> list[dict[str, Any]]:
    """What both ranks found."""
    return on_two_ranks(_half)


def test_two_ranks_equal_one_with_both_halves(halves: list[dict[str, Any]]) -> None:
    losses, reference, valid = batch(200, 1)
    whole = SelectiveLoss(ratio=0.6)(losses, reference, valid)
    whole.backward()
    assert np.mean([half["loss"] for half in halves]) == pytest.approx(float(whole), rel=1e-6)
    # data parallelism averages gradients over the ranks
    averaged = np.concatenate([half["grad"] for half in halves]) / 2
    np.testing.assert_allclose(averaged, losses.grad.numpy(), rtol=1e-6)


def test_ties_are_taken_in_the_order_of_ranks(halves: list[dict[str, Any]]) -> None:
    # of eight tokens round(0.6 * 8) = 5: the four of 2.0, and the first of 1.0
    assert [half["tied"].tolist() for half in halves] == [[True, True, True, False], [False, True, True, False]]
    assert [half["threshold"] for half in halves] == [1.0, 1.0]


def test_two_ranks_accumulate_as_one(halves: list[dict[str, Any]]) -> None:
    losses, reference, valid = batch(200, 1)
    parts = [[*range(30), *range(100, 130)], [*range(30, 100), *range(130, 200)]]
    expected = np.zeros(200)
    masks = [hand_mask(losses[part], reference[part], valid[part], 0.6) for part in parts]
    total = sum(mask.sum() for mask in masks)
    for part, mask in zip(parts, masks, strict=True):
        expected[part] = mask / total
    averaged = np.concatenate([half["accumulated"] for half in halves]) / 2
    np.testing.assert_allclose(averaged, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "exactly one"),
        ({"ratio": 0.5, "threshold": 1.0}, "exactly one"),
        ({"ratio": 0.0}, "above 0"),
        ({"ratio": math.nan}, "above 0"),
        ({"threshold": math.inf}, "finite"),
        ({"threshold": 1.0, "scope": "ema"}, "ratio"),
        ({"ratio": 0.5, "decay": 1.0}, "below 1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SelectiveLoss(**options)


def _one_fails(rank: int) -> str:
    """On one of two ranks: the error that work which fails on rank 1 alone raises."""

    def work() -> int:
        if rank == 1:
            raise InputError("rank 1 has no such file")
        return 7

    try:
        Ranks().together(work)
    except InputError as error:
        return str(error)
    return "none"


def test_an_error_of_one_rank_is_raised_on_all() -> None:
    assert on_two_ranks(_one_fails) == ["rank 1 has no such file"] * 2
