"""The order by difficulty against a full sort."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rho_score.exporting.difficulty import cut_order, document_ranks, rank_keys, read_range, run_file, tokens_by_key
from rho_score.files.folder import Folder
from rho_score.stores.framing import Documents

ranks = st.lists(
    st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, 1.0000001, 1.0001, -2.5, float("nan"), 1e30]), max_size=60
)


@given(values=ranks)
def test_keys_never_fall_where_ranks_rise(values: list[float]) -> None:
    array = np.sort(np.array(values, np.float32))  # NaN last
    keys = rank_keys(array).astype(int)
    assert (np.diff(keys) >= 0).all()
    equal = array[1:] == array[:-1]
    assert (np.diff(keys)[equal] == 0).all()


def test_the_rank_is_the_mean_over_scored_tokens() -> None:
    scores = np.array([1, np.nan, 2, -4, np.nan], np.float32)
    ranks = document_ranks(scores, np.array([3, 0, 1, 1]), hard_first=False)
    assert ranks.tolist()[0::2] == [1.5, -4]
    assert np.isnan(ranks[[1, 3]]).all()
    assert document_ranks(scores, np.array([3, 0, 1, 1]), hard_first=True)[:3:2].tolist() == [-1.5, 4]


@pytest.mark.parametrize("n_parts", [1, 3, 7])
@given(runs=st.lists(ranks, min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_ranges_of_runs_are_the_full_sort(
    runs: list[list[float]], n_parts: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = Folder(str(tmp_path_factory.mktemp("runs")))
    every, histograms, n = [], [], 0
    for number, values in enumerate(runs):
        array = np.array(values, np.float32)
        lengths = np.arange(len(values)) % 3 + 1
        documents = Documents(
            doc_ids=pa.array([str(n + i) for i in range(len(values))], pa.string()),
            lengths=lengths,
            input_ids=np.repeat(np.arange(n, n + len(values), dtype=np.int32), lengths),
            mask=np.ones(lengths.sum(), bool),
        )
        folder.publish(f"{number}", run_file(documents, array))
        histograms.append(tokens_by_key(array, lengths))
        every += values
        n += len(values)
    ranges = cut_order(histograms, n_parts)
    assert len(ranges) == n_parts
    found = [
        document
        for keys in ranges
        for batch in read_range(folder, [str(i) for i in range(len(runs))], keys)
        for document in batch.doc_ids.to_pylist()
    ]
    assert [int(i) for i in found] == np.argsort(np.array(every, np.float32), kind="stable").tolist()


def test_ranges_hold_about_the_same_number_of_tokens() -> None:
    lengths = np.full(4000, 10)
    values = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    histogram = tokens_by_key(values, lengths)
    tokens = dict(zip(*histogram, strict=True))
    for keys in cut_order([histogram], 5):
        inside = sum(count for key, count in tokens.items() if keys.first <= key < keys.stop)
        assert inside == pytest.approx(8000, rel=0.05)
