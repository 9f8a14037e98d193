"""The bound of the divergence against whole distributions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rho_score.ranking.divergence import kl_lower_bound


def _pair(n: int, words: int, seed: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """The log-probabilities of n pairs of distributions over some words, float64[n, words] each."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, words)) * sharpness
    logits = [shared + rng.normal(size=(n, words)) * 0.7 for _ in range(2)]
    p, q = (z - np.log(np.exp(z).sum(axis=1, keepdims=True)) for z in logits)
    return p, q


def _top(log: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.argsort(-log, axis=1, kind="stable")[:, :k]
    return ids, np.take_along_axis(log, ids, axis=1)


def _true(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    divergences: np.ndarray = (np.exp(p) * (p - q)).sum(axis=1)
    return divergences


def _lumped(p: np.ndarray, q: np.ndarray, kept: set[int]) -> float:
    """The divergence of one pair after the words outside `kept` are put together, in the plainest way."""
    words = sorted(kept)
    cells = [(np.exp(p[w]), np.exp(q[w])) for w in words]
    outside = [w for w in range(len(p)) if w not in kept]
    cells.append((sum(np.exp(p[w]) for w in outside), sum(np.exp(q[w]) for w in outside)))
    return float(sum(a * np.log(a / b) for a, b in cells if a > 0))


@pytest.mark.parametrize("with_targets", [False, True])
@pytest.mark.parametrize(("k", "m"), [(1, 1), (3, 3), (4, 2)])
def test_it_is_the_divergence_with_all_other_words_as_one(k: int, m: int, with_targets: bool) -> None:
    p, q = _pair(60, 12, seed=k, sharpness=1.5)
    (p_ids, p_log), (q_ids, q_log) = _top(p, k), _top(q, m)
    targets = np.random.default_rng(1).integers(0, 12, 60)
    rows = np.arange(60)
    losses = {"targets": targets, "p_loss": -p[rows, targets], "q_loss": -q[rows, targets]} if with_targets else {}
    found = kl_lower_bound(p_ids, p_log, q_ids, q_log, **losses)
    for i in rows:
        kept = set(p_ids[i].tolist()) & set(q_ids[i].tolist()) | ({int(targets[i])} if with_targets else set())
        assert found[i] == pytest.approx(_lumped(p[i], q[i], kept), abs=1e-9)


@given(st.integers(0, 10_000), st.integers(2, 40), st.floats(0, 4))
def test_it_is_never_above_the_divergence_and_grows_with_k(seed: int, words: int, sharpness: float) -> None:
    p, q = _pair(8, words, seed, sharpness)
    true, last = _true(p, q), np.zeros(8)
    for k in sorted({1, words // 2 or 1, words}):
        bound = kl_lower_bound(*_top(p, k), *_top(q, k))
        assert (bound <= true + 1e-5).all()
        assert (bound >= last - 1e-5).all()  # the shared words of a larger k include those of a smaller one
        last = bound
    np.testing.assert_allclose(last, true, atol=1e-4)  # with all words, up to the floor of the rest


def test_equal_distributions_have_none_and_nothing_shared_tells_nothing() -> None:
    p, _ = _pair(5, 20, 0, 2.0)
    np.testing.assert_allclose(kl_lower_bound(*_top(p, 4), *_top(p, 4)), 0.0, atol=1e-12)
    ids = np.array([[0, 1]])
    log = np.log(np.array([[0.6, 0.3]]))
    assert kl_lower_bound(ids, log, ids + 2, log) == pytest.approx([0.0])


def test_a_rest_that_rounding_hides_is_taken_to_be_the_floor() -> None:
    p_ids = q_ids = np.array([[3]])
    p_log, q_log = np.log(np.array([[0.5]])), np.array([[0.0]])  # under q, all but rounding is word 3
    expected = 0.5 * np.log(0.5) + 0.5 * np.log(0.5 / 2.0**-10)
    assert kl_lower_bound(p_ids, p_log, q_ids, q_log, floor=2.0**-10) == pytest.approx([expected])


def test_no_rows() -> None:
    ids, log = np.zeros((0, 4), np.int32), np.zeros((0, 4), np.float32)
    assert kl_lower_bound(ids, log, ids, log).shape == (0,)
