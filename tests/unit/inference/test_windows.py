import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rho_score.inference.windows import Window, packs, rectangles, windows

SETTINGS = st.integers(2, 40).flatmap(lambda context: st.tuples(st.just(context), st.integers(0, context - 2)))


@given(st.integers(0, 300), SETTINGS, st.booleans())
def test_every_token_is_scored_once_with_enough_context(n: int, setting: tuple[int, int], has_prefix: bool) -> None:
    context, overlap = setting
    cut = windows(n, context=context, overlap=overlap, has_prefix=has_prefix)
    scored = [i for window in cut for i in range(window.first, window.stop)]
    assert scored == list(range(0 if has_prefix else 1, n))
    for window in cut:
        assert (window.stop - 1 - window.start) + has_prefix <= context  # input positions
        assert window.first - window.start >= min(overlap, window.first)
        assert has_prefix or window.first > window.start  # a token needs something before it


def test_the_contract_by_example() -> None:
    assert windows(10, context=4, overlap=1, has_prefix=True) == [
        Window(0, 0, 4),
        Window(3, 4, 7),
        Window(6, 7, 10),
    ]
    assert windows(6, context=4, overlap=0, has_prefix=False) == [Window(0, 1, 5), Window(4, 5, 6)]
    assert windows(0, context=4, overlap=1, has_prefix=True) == []
    assert windows(1, context=4, overlap=1, has_prefix=False) == []


@pytest.mark.parametrize(("context", "overlap"), [(1, 0), (4, 3), (4, -1)])
def test_settings_that_cannot_advance_are_refused(context: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap must lie in"):
        windows(10, context=context, overlap=overlap, has_prefix=True)


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_packs_hold_each_sequence_once_and_waste_no_room(lengths: list[int], budget: int) -> None:
    groups = packs(lengths, batch_tokens=budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for at, group in enumerate(groups):
        used = sum(lengths[i] for i in group)
        assert len(group) == 1 or used <= budget
        for later in groups[at + 1 :]:
            assert all(lengths[i] > budget - used for i in later)  # it would have gone into the earlier one


def test_packs_of_many_short_sequences_are_full() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(10, 400, 20_000).tolist()
    groups = packs(lengths, batch_tokens=2048)
    assert sum(lengths) / (len(groups) * 2048) > 0.995


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_rectangles_hold_each_sequence_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = rectangles(lengths, batch_tokens=budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert lengths[batch[0]] == longest
        assert len(batch) == 1 or len(batch) * longest <= budget
