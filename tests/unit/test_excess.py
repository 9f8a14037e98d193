import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rho_score.excess import document_means, first_difference, unit_scores
from rho_score.masks import group_accounts
from rho_score.schema import score_schema

LOSSES = st.lists(
    st.lists(st.tuples(st.floats(0, 50, width=16), st.none() | st.floats(0, 50, width=16)), max_size=5),
    max_size=6,
)


def _table(losses: list[list[float | None]], groups: list[str] | None = None) -> pa.Table:
    columns = {
        "doc_id": [f"d{i}" for i in range(len(losses))],
        "input_ids": [list(range(len(d))) for d in losses],
        "loss": losses,
    } | ({"group": groups} if groups else {})
    return pa.table(columns, schema=score_schema(grouped=groups is not None))


@given(LOSSES)
def test_excess_is_base_minus_ref(pairs: list[list[tuple[float, float | None]]]) -> None:
    base, ref = _table([[b for b, _ in d] for d in pairs]), _table([[r for _, r in d] for d in pairs])
    scores = unit_scores(ref, base)
    wanted = [
        np.nan if r is None else np.float32(np.float16(np.float32(b) - np.float32(r))) for d in pairs for b, r in d
    ]
    np.testing.assert_array_equal(scores.tokens, np.array(wanted, np.float32))
    means = [float(np.nanmean(scores.tokens[s : s + n])) if n and not np.isnan(scores.tokens[s : s + n]).all() else np.nan
             for s, n in zip(np.cumsum([0, *map(len, pairs)]), map(len, pairs), strict=False)]  # fmt: skip
    np.testing.assert_allclose(document_means(scores.tokens, scores.lengths), means, rtol=1e-6, atol=1e-6)


def test_without_a_base_it_is_the_loss() -> None:
    assert unit_scores(_table([[1.0, None], []]), None).tokens.tolist()[0] == 1.0


def test_the_first_difference_is_found() -> None:
    a, b = _table([[1.0], [1.0, 2.0]]), _table([[1.0], [1.0, 2.0, 3.0]])
    assert first_difference(a, a) is None
    assert first_difference(a, b) == "row 1: document 'd1', tokens differ from position 2 on (2 and 3 tokens)"
    assert first_difference(a, a.slice(0, 1)) == "row 1: 2 documents in the one, 1 in the other"
    assert first_difference(a.slice(1), a) == "row 0: document 'd1' in the one, 'd0' in the other"


def test_group_accounts() -> None:
    scores = unit_scores(_table([[None, 1.0], [2.0], []], ["a", "b", "a"]), None)
    accounts = group_accounts(scores, np.array([False, True, False]))
    a = accounts["a"]
    assert (a.documents, a.documents_kept, a.tokens, a.tokens_scored, a.tokens_kept) == (2, 1, 2, 1, 1)
    assert accounts["b"].share_kept == 0
