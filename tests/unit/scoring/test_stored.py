"""What a worker passes on of the numbers of each token."""

import numpy as np
import pyarrow as pa

from rho_score.scoring.unit_work import _as_stored

NAN = float("nan")


def test_tokens_that_do_not_count_and_tokens_without_a_number_are_null() -> None:
    values = [np.array([NAN, 1.0001, 2], np.float32), np.zeros(0, np.float32), np.array([3], np.float32)]
    counts = np.array([True, True, False, True])
    assert _as_stored(values, counts, pa.float32(), "float16").to_pylist() == [None, 1.0, None, 3.0]
    assert _as_stored(values, None, pa.int32(), "float16").to_pylist() == [None, 1, 2, 3]


def test_a_token_has_all_its_likeliest_tokens_or_is_null() -> None:
    rows = np.array([[NAN, NAN], [1.0001, 7], [2, 8], [3, 300_001]], np.float32)
    values = [rows[:3], rows[:0], rows[3:]]
    counts = np.array([True, True, False, True])
    stored = _as_stored(values, counts, pa.list_(pa.int32()), "float16")
    assert stored.to_pylist() == [None, [1, 7], None, [3, 300_001]]
    assert stored.type == pa.list_(pa.int32())
    rounded = _as_stored([rows[:3]], None, pa.list_(pa.float32()), "float16")
    assert rounded.to_pylist() == [None, [1.0, 7.0], [2.0, 8.0]]
    exact = _as_stored([rows[:3]], None, pa.list_(pa.float32()), "float32")
    assert exact.to_pylist()[1] == [float(np.float32(1.0001)), 7.0]


def test_a_unit_whose_only_document_fails_has_nulls() -> None:
    none = [np.full(2, NAN, np.float32)]
    assert _as_stored(none, None, pa.list_(pa.int32()), "float16").to_pylist() == [None, None]
    assert _as_stored([], None, pa.list_(pa.int32()), "float16").to_pylist() == []
