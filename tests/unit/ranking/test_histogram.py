import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rho_score.errors import RhoScoreError
from rho_score.ranking import histogram, kernel
from rho_score.ranking.cuts import BudgetCut, cut_budget, cut_items, cut_threshold
from rho_score.ranking.histogram import COUNTS, Counter, merge, refine
from rho_score.ranking.keys import N_COUNTERS, Bits, keys_of, round_score, values_of
from rho_score.ranking.rules import share_budget, share_ties
from tests.oracle import full_sort_mask

FINITE = st.floats(-60000, 60000, width=16)
SCORES = arrays(np.float32, st.integers(0, 80), elements=st.one_of(FINITE, st.sampled_from([0.0, -0.0, 1.5, np.nan])))


def count(group: str | None, scores: np.ndarray, tokens: np.ndarray | None = None, bits: Bits = 16) -> pa.Table:
    """The histogram of one group's scores."""
    counter = Counter(bits)
    rounded, n = round_score(scores, bits), np.array([len(scores)])
    counter.add(None, rounded, n, np.zeros(1, np.int64), [group], tokens)
    return counter.table()


def test_keys_order_as_all_float16_values_do() -> None:
    values = np.arange(N_COUNTERS, dtype=np.uint16).view(np.float16)
    values = np.unique(values[np.isfinite(values)].astype(np.float32))
    keys = keys_of(values).astype(int)
    assert (np.diff(keys) > 0).all()
    assert np.array_equal(values_of(keys), values)


@pytest.fixture(params=["compiled", "numpy"])
def either_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with the compiled loops and with numpy's."""
    if request.param == "numpy":
        monkeypatch.setattr(kernel, "compiled", None)
    elif kernel.compiled is None:
        pytest.skip("rho_score/ranking/_kernel.pyx was not compiled: no C compiler")


def test_rounding_to_float16_is_numpys(either_kernel: None) -> None:
    edges = np.array(
        [0, 2**-25, 2**-24, 2**-14, 2**-14 - 2**-25, 65504, 65519.996, 65520, 1e38, np.inf, np.nan], np.float32
    )
    steps = np.arange(N_COUNTERS, dtype=np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(invalid="ignore"):
        halves = (steps[1:] + steps[:-1]) / 2  # ties
    every = np.concatenate([edges, -edges, steps, halves, np.nextafter(halves, np.inf), np.nextafter(halves, -np.inf)])
    random = np.random.default_rng(0).integers(0, 1 << 32, 200_000, dtype=np.uint32).view(np.float32)
    for values in (every, random):
        with np.errstate(over="ignore", invalid="ignore"):
            expected = values.astype(np.float16)
        found = kernel.to_float16(values)
        same = found.view(np.uint16) == expected.view(np.uint16)
        assert (same | (np.isnan(found) & np.isnan(expected))).all()


def test_a_difference_is_rounded_once(either_kernel: None) -> None:
    left, right = np.random.default_rng(1).normal(0, 3, (2, 10_001)).astype(np.float32)
    left[:3], right[:3] = [np.inf, np.inf, 70000], [np.inf, 1, -1]
    with np.errstate(over="ignore", invalid="ignore"):
        expected = (left - right).astype(np.float16)
    found = kernel.to_float16(left, right)
    assert np.array_equal(found, expected, equal_nan=True)
    assert kernel.to_float16(left[::2], right[::2])[1] == expected[2]


def test_items_are_counted_in_the_row_of_their_run(either_kernel: None) -> None:
    random = np.random.default_rng(2)
    lengths, rows = random.integers(0, 50, 200), random.integers(0, 3, 200)
    bins = random.integers(0, 1 << 16, lengths.sum()).astype(np.uint16)
    bins[::2] = 7  # one bin again and again
    held = random.integers(0, 1 << 50, len(bins))
    for tokens, kind in ((None, np.uint32), (None, np.int64), (held, np.int64)):
        counters = np.ones((3, N_COUNTERS), kind)
        kernel.add_counts(counters, bins, lengths, rows, tokens)
        expected = np.ones((3, N_COUNTERS), np.int64)
        owners = np.repeat(rows, lengths)
        for i in range(len(bins)):
            expected[owners[i], bins[i]] += 1 if tokens is None else tokens[i]
        assert np.array_equal(counters, expected)


def test_runs_that_do_not_fit_their_items_are_refused(either_kernel: None) -> None:
    counters, bins = np.zeros((1, N_COUNTERS), np.int64), np.zeros(3, np.uint16)
    with pytest.raises((IndexError, ValueError)):
        kernel.add_counts(counters, bins, np.array([4]), np.array([0]))
    with pytest.raises((IndexError, ValueError)):
        kernel.add_counts(counters, bins, np.array([3]), np.array([1]))


def test_more_items_than_a_small_counter_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histogram, "MOST_ITEMS", 7)
    random = np.random.default_rng(3)
    counter, every = Counter(16), []
    for i in range(40):  # more groups than there are rows at first
        scores = random.integers(-2, 3, random.integers(0, 7)).astype(np.float16)
        groups = ["g", f"group {i}"]
        owners = random.integers(0, 2, len(scores))
        counter.add(None, scores, np.ones(len(scores), np.int64), owners, groups, np.arange(len(scores)))
        every += [(groups[owner], float(score), i) for i, (owner, score) in enumerate(zip(owners, scores, strict=True))]
    found = {(row["group"], row["key"]): (row["count"], row["tokens"]) for row in counter.table().to_pylist()}
    expected: dict[tuple[str, int], tuple[int, int]] = {}
    for group, score, held in every:
        place = group, int(keys_of(np.array([score], np.float32))[0])
        n, tokens = expected.get(place, (0, 0))
        expected[place] = n + 1, tokens + held
    assert found == expected


def test_minus_zero_is_zero() -> None:
    assert keys_of(np.array([-0.0], np.float32)) == keys_of(np.array([0.0], np.float32))
    assert keys_of(np.array([-0.0], np.float32), 32) == keys_of(np.array([0.0], np.float32), 32)
    assert count(None, np.array([-0.0, 0.0, 0.0], np.float32))["count"].to_pylist() == [3]


@given(arrays(np.float32, st.integers(0, 60), elements=st.floats(width=32, allow_nan=False)))
def test_keys_of_float32_order_as_the_values_do(values: np.ndarray) -> None:
    keys = keys_of(values, 32).astype(np.int64)
    assert ((keys[:, None] < keys) == (values[:, None] < values)).all()
    assert np.array_equal(values_of(keys_of(values, 32), 32), values + np.float32(0))


@given(arrays(np.float32, st.integers(1, 60), elements=st.floats(-3, 3, width=32)), st.integers(1, 60), st.booleans())
def test_two_passes_over_float32_find_the_exact_cut(values: np.ndarray, n_keep: int, high: bool) -> None:
    coarse = count("g", values, bits=32)
    rough = cut_items(coarse, n_keep, high=high)
    fine = Counter(32, {(None, "g"): [rough.key >> 16]})
    fine.add(None, values, np.array([len(values)]), np.zeros(1, np.int64), ["g"])
    cut = cut_items(refine(coarse, fine.table()), n_keep, high=high)
    found, _ = cut.first(round_score(values, 32), cut.ties, 32)
    assert np.array_equal(found, full_sort_mask(values, n_keep, high=high))


@given(st.lists(SCORES, max_size=5), st.randoms())
def test_merging_is_addition_in_any_order(parts: list[np.ndarray], random: object) -> None:
    whole = merge([count("g", np.concatenate([np.zeros(0, np.float32), *parts]))])
    tables = [count("g", part) for part in parts]
    random.shuffle(tables)  # type: ignore[attr-defined]
    assert merge(tables).equals(whole)
    nested = merge([merge(tables[:2]), merge(tables[2:])])
    assert nested.equals(whole)


def _select(units: list[np.ndarray], n_keep: int, *, high: bool) -> np.ndarray:
    """The mask from histogram, cut and ties, made unit by unit as in the job."""
    rounded = [round_score(unit) for unit in units]
    cut = cut_items(merge(count(None, unit) for unit in units), n_keep, high=high)
    ties = share_ties(cut, [int(np.sum(unit == cut.value(16))) for unit in rounded])
    return np.concatenate([np.zeros(0, bool), *(cut.first(u, n, 16)[0] for u, n in zip(rounded, ties, strict=True))])


@given(st.lists(SCORES, max_size=5), st.floats(0, 1), st.booleans())
def test_selection_equals_the_full_sort_ties_included(units: list[np.ndarray], ratio: float, high: bool) -> None:
    scores = round_score(np.concatenate([np.zeros(0, np.float32), *units]))
    n_keep = round(ratio * int((~np.isnan(scores)).sum()))
    mask = _select(units, n_keep, high=high)
    assert mask.sum() == n_keep
    assert np.array_equal(mask, full_sort_mask(scores, n_keep, high=high))


@given(SCORES, FINITE, st.booleans())
def test_a_threshold_keeps_what_reaches_it(scores: np.ndarray, threshold: float, high: bool) -> None:
    cut = cut_threshold(count(None, scores), threshold, high=high)
    rounded = round_score(scores)
    with np.errstate(invalid="ignore"):
        assert cut.kept == ((rounded >= threshold) if high else (rounded <= threshold)).sum()


@pytest.mark.parametrize("threshold", [-2.0, -1.0, 0.7, 3.0])
@pytest.mark.parametrize("high", [True, False])
def test_a_threshold_of_float32_has_a_place_for_infinities(threshold: float, high: bool) -> None:
    values = np.array([-np.inf, -1, 0.5, 0.7, 2, np.inf, np.nan], np.float32)
    coarse = count("g", values, bits=32)
    highs = sorted({int(key) >> 16 for key in keys_of(np.array([threshold], np.float32), 32)})
    fine = Counter(32, {(None, "g"): highs})
    fine.add(None, values, np.array([len(values)]), np.zeros(1, np.int64), ["g"])
    wanted = np.float32(threshold)
    cut = cut_threshold(refine(coarse, fine.table()), float(wanted), high=high, bits=32)
    assert cut.kept == ((values >= wanted) if high else (values <= wanted)).sum()


DOCUMENTS = st.lists(st.tuples(st.sampled_from([-1.0, 0.5, 0.75, 2.0]), st.integers(1, 9)), max_size=40)


@given(DOCUMENTS, st.integers(0, 200), st.booleans())
def test_a_budget_is_filled_in_rank_order_up_to_the_first_that_does_not_fit(
    documents: list[tuple[float, int]], budget: int, high: bool
) -> None:
    scores = np.array([score for score, _ in documents], np.float32)
    tokens = np.array([n for _, n in documents], np.int64)
    order = np.argsort(-scores if high else scores, kind="stable")
    fits = np.cumsum(tokens[order]) <= budget
    wanted = order[: len(fits) if fits.all() else int(np.argmin(fits))]
    cut = cut_budget(count(None, scores, tokens), budget, high=high)
    tied = np.flatnonzero(round_score(scores) == cut.value(16))
    if isinstance(cut, BudgetCut):
        (n_ties,) = share_budget(cut, [tokens[tied].tolist()])
    else:
        (n_ties,) = share_ties(cut, [len(tied)])
    kept, _ = cut.first(round_score(scores), n_ties, 16)
    assert np.array_equal(np.flatnonzero(kept), np.sort(wanted))


@pytest.mark.parametrize("n_keep", [0, 1, 3, 99])
def test_all_scores_equal(n_keep: int) -> None:
    scores = np.full(3, 1.25, np.float32)
    assert _select([scores], n_keep, high=True).tolist() == [i < n_keep for i in range(3)]


def test_a_cut_of_nothing_has_no_threshold() -> None:
    cut = cut_items(COUNTS.empty_table(), 5, high=True)
    assert cut.nothing
    assert np.isnan(cut.value(16))


def test_columns_of_a_histogram() -> None:
    counter = Counter(16)
    scores = np.array([1.0, 1.0, 2.0], np.float16)
    counter.add(None, scores, np.ones(3, np.int64), np.zeros(3, np.int64), ["g"], np.array([5, 6, 7]))
    table = counter.table()
    assert table.to_pydict() == {
        "expert": [None, None],
        "group": ["g", "g"],
        "key": keys_of(np.array([1.0, 2.0], np.float32)).tolist(),
        "count": [2, 1],
        "tokens": [11, 7],
    }
    assert table.schema.field("key").type == pa.uint32()


def test_more_groups_than_there_is_memory_for_are_refused_where_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histogram, "MAX_ROWS", 3)
    parts = []
    for names in (["a", "b"], ["b", "c"], ["d"]):
        counter = Counter(16)
        counter.add(None, np.zeros(len(names), np.float16), np.ones(len(names), np.int64), np.arange(len(names)), names)
        parts.append(counter.table())
    assert merge(parts[:2])["group"].to_pylist() == ["a", "b", "c"]
    with pytest.raises(RhoScoreError, match="more than 3 groups"):
        merge(parts)
