"""What a threshold keeps, beside a comparison of every value."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rho_score.stores.selection import HISTOGRAM_SCHEMA
from rho_score.viewing.thresholds import Thresholds

VALUES = [-np.inf, -2.5, -1.0, 0.0, 0.25, 3.0, np.inf]
ROWS = st.lists(
    st.tuples(st.sampled_from(VALUES), st.integers(1, 5), st.sampled_from(["a", "b", None])), min_size=1, max_size=30
)


def _table(rows: list[tuple[float, int, str | None]]) -> pa.Table:
    rows = sorted(rows, key=lambda row: str(row[2]))  # a group's rows are together
    columns = {
        "expert": [None] * len(rows), "group": [g for _, _, g in rows], "value": [v for v, _, _ in rows],
        "count": [n for _, n, _ in rows], "tokens": [3 * n for _, n, _ in rows],
    }  # fmt: skip
    return pa.table(columns, HISTOGRAM_SCHEMA)


@pytest.mark.parametrize("high", [True, False])
@given(rows=ROWS, threshold=st.sampled_from([*VALUES, 0.1, -7.0]), share=st.floats(0, 1))
def test_every_item_is_compared(
    rows: list[tuple[float, int, str | None]], threshold: float, share: float, high: bool
) -> None:
    found = Thresholds(_table(rows), high=high)
    kept = {g: 0 for _, _, g in rows}
    for value, n, group in rows:
        kept[group] += n * (value >= threshold if high else value <= threshold)
    assert {k.group: k.items_kept for k in found.at(threshold)} == kept
    assert {k.group: k.tokens_kept for k in found.at(threshold)} == {group: 3 * n for group, n in kept.items()}
    every = sorted((value for value, n, _ in rows for _ in range(n)), reverse=high)
    assert found.items == len(every)
    wanted = round(share * len(every))
    assert found.at_share(share) == (every[wanted - 1] if wanted else None)
    for group, whole in ((None, True), *((g, False) for g in kept)):
        chart = found.distribution(group, whole=whole)
        assert chart.counts.sum() == sum(n for _, n, g in rows if whole or g == group)


def test_the_lowest_bin_of_32_bits_may_be_no_number() -> None:
    found = Thresholds(_table([(float("nan"), 2, "a"), (1.0, 3, "a")]), high=True)
    assert [k.items_kept for k in found.at(0.5)] == [3]
    assert found.quantiles((0.5,)) == [1.0]
