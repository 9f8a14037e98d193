import itertools

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rho_score.files.arrow import list_lengths
from rho_score.ranking.scores import UnitScores, combined, document_means, longer_runs, score_lists
from rho_score.selecting.group_counts import count_groups
from rho_score.selecting.join import first_difference
from rho_score.stores.schema import score_schema

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


def _scores(
    ref: list[list[float | None]], base: list[list[float | None]] | None = None, groups: list[str] | None = None
) -> UnitScores:
    table = _table(ref, groups)
    flat = [
        np.array([np.nan if x is None else x for d in losses for x in d], np.float32) for losses in (ref, base or ref)
    ]
    loss, tokens, rankings = combined({"ref": flat[0]}, flat[1] if base else None, "min", 16)
    return UnitScores(
        documents=table, lengths=list_lengths(table["loss"]), tokens=tokens, rankings=rankings, ref_loss=loss,
        base_loss=flat[1] if base else None,
    )  # fmt: skip


@given(LOSSES)
def test_excess_is_base_minus_ref(pairs: list[list[tuple[float, float | None]]]) -> None:
    scores = _scores([[r for _, r in d] for d in pairs], [[b for b, _ in d] for d in pairs])
    wanted = [np.nan if r is None else np.float16(np.float32(b) - np.float32(r)) for d in pairs for b, r in d]
    np.testing.assert_array_equal(scores.tokens, np.array(wanted, np.float16))
    assert list(scores.rankings) == [None]
    tokens = scores.tokens.astype(np.float64)
    means = [float(np.nanmean(tokens[s : s + n])) if n and not np.isnan(tokens[s : s + n]).all() else np.nan
             for s, n in zip(np.cumsum([0, *map(len, pairs)]), map(len, pairs), strict=False)]  # fmt: skip
    np.testing.assert_allclose(document_means(scores.tokens, scores.lengths), means, rtol=1e-6, atol=1e-6)


def test_without_a_base_it_is_the_loss() -> None:
    assert _scores([[1.0, None], []]).tokens.tolist()[0] == 1.0


def test_stored_scores_have_no_minus_zero_and_nulls_for_nan() -> None:
    column = score_lists(np.array([-0.0, np.nan, 1.5], np.float16), np.array([2, 1]))
    assert column.to_pylist() == [[0.0, None], [1.5]]
    assert not np.signbit(column[0][0].as_py())


@given(st.lists(st.lists(st.booleans(), max_size=9), max_size=5), st.integers(1, 4))
def test_short_runs_are_taken_out_within_documents(documents: list[list[bool]], n: int) -> None:
    lengths = np.array([len(d) for d in documents], np.int64)
    flat = np.array([x for d in documents for x in d], bool)
    wanted = []
    for document in documents:
        for value, run in itertools.groupby(document):
            size = len(list(run))
            wanted += [value and size >= n] * size
    assert longer_runs(flat, lengths, n).tolist() == wanted


def test_the_first_difference_is_found() -> None:
    a, b = _table([[1.0], [1.0, 2.0]]), _table([[1.0], [1.0, 2.0, 3.0]])
    assert first_difference(a, a) is None
    assert first_difference(a, b) == "row 1, document 'd1': tokens differ from position 2 on (2 and 3 tokens)"
    assert first_difference(a, a.slice(0, 1)) == "row 1: the first has 2 documents, the second 1"
    assert first_difference(a.slice(1), a) == "row 0: the first has document 'd1', the second 'd0'"


def test_group_accounts() -> None:
    scores = _scores([[None, 1.0], [2.0], []], groups=["a", "b", "a"])
    accounts = count_groups(scores, np.array([False, True, False]))
    a = accounts["a"]
    assert (a.documents, a.documents_kept, a.tokens, a.tokens_scored, a.tokens_kept) == (2, 1, 2, 1, 1)
    assert accounts["b"].share_kept == 0
