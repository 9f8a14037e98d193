import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rho_score.files.arrow import flat_values, list_column, list_lengths
from rho_score.files.parquet import footer, parquet_bytes
from rho_score.ranking.keys import round_score
from rho_score.stores.schema import content_sha256, score_schema

DOCUMENTS = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.lists(st.tuples(st.integers(0, 2**31 - 1), st.none() | st.floats(0, 100, width=32)), max_size=6),
    ),
    max_size=8,
)


def _table(documents: list[tuple[str, list[tuple[int, float | None]]]]) -> pa.Table:
    losses = [
        [None if x is None else float(round_score(np.array([x], np.float32))[0]) for _, x in d] for _, d in documents
    ]
    return pa.table(
        {
            "doc_id": [name for name, _ in documents],
            "input_ids": [[i for i, _ in d] for _, d in documents],
            "loss": losses,
        },
        schema=score_schema(grouped=False),
    )


@given(DOCUMENTS)
def test_what_is_stored_reads_back(documents: list[tuple[str, list[tuple[int, float | None]]]]) -> None:
    table = _table(documents)
    file = pq.ParquetFile(io.BytesIO(parquet_bytes(table, score_schema(grouped=False), {"unit": "ü", "n": 1})))
    assert file.read().equals(table)
    assert footer(file) == {"unit": "ü", "n": 1}


@given(DOCUMENTS, DOCUMENTS)
def test_the_content_hash_tells_documents_apart(a: list[tuple[str, list]], b: list[tuple[str, list]]) -> None:  # type: ignore[type-arg]
    left, right = (_table(d) for d in (a, b))
    same = left.select(["doc_id", "input_ids"]).equals(right.select(["doc_id", "input_ids"]))
    hashes = [content_sha256(t["doc_id"], t["input_ids"]) for t in (left, right)]
    assert (hashes[0] == hashes[1]) == same
    rechunked = pa.concat_tables([left.slice(0, 1), left.slice(1)])
    assert content_sha256(rechunked["doc_id"], rechunked["input_ids"]) == hashes[0]


def test_scores_and_ids_take_a_dictionary() -> None:
    content = parquet_bytes(_table([("a", [(1, 2.0), (2, 3.0)])]), score_schema(grouped=False))
    columns = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0)
    encodings = {columns.column(i).path_in_schema: columns.column(i).encodings for i in range(columns.num_columns)}
    assert "RLE_DICTIONARY" in encodings["loss.list.element"]
    assert "RLE_DICTIONARY" in encodings["input_ids.list.element"]
    assert "RLE_DICTIONARY" not in encodings["doc_id"]


def test_other_columns_than_the_contract_are_refused() -> None:
    table = _table([("a", [(1, 2.0)])])
    with pytest.raises(TypeError, match="the columns differ from the schema"):
        parquet_bytes(table, score_schema(grouped=True))
    wide = table.set_column(1, "input_ids", table["input_ids"].cast(pa.list_(pa.int64())))
    with pytest.raises(TypeError, match="the columns differ from the schema"):
        parquet_bytes(wide, score_schema(grouped=False))


def test_lists_and_their_values() -> None:
    column = list_column(np.array([1, 2, 3], np.int32), np.array([2, 0, 1]))
    assert column.to_pylist() == [[1, 2], [], [3]]
    chunked = pa.chunked_array([column, column.slice(2)])
    assert flat_values(chunked).to_pylist() == [1, 2, 3, 3]
    assert list_lengths(chunked).tolist() == [2, 0, 1, 1]
