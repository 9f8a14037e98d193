"""Parquet rows and packed blocks with labels, as Hugging Face's Trainer reads them.

It turns arrays into bytes, and uses neither files nor Ray. In every format a mask entry belongs to
the token at its own place, the *target*. A trainer that predicts token i + 1 from tokens 0..i
weighs that prediction with mask[i + 1].
"""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.files.arrow import list_column
from rho_score.stores.framing import IGNORED, Documents, Frame
from rho_score.stores.schema import FLOATS, IDS, WEIGHT


class LabelsWriter:
    """`.parquet`, one row per document: doc_id string · input_ids, labels, attention_mask list<int32>.

    labels[i] is input_ids[i] where the mask is True, else -100. It is at the place of token i
    itself: Hugging Face's models shift labels, and predict labels[i] from the tokens before it.
    Nothing comes before the first token of a row, so labels[0] is always -100. With a prefix, no
    token is lost by that. attention_mask is 1 everywhere; Axolotl wants it. Further columns are
    list<float32>, with null where a token has no number.
    """

    def __init__(self, frame: Frame, columns: Sequence[str] = ()) -> None:
        schema = pa.schema(
            [_DOC_ID, *((name, IDS) for name in ("input_ids", "labels", "attention_mask")), *_floats(columns)]
        )
        self._frame, self._columns, self._rows = frame, columns, _Rows(schema)
        self.written = self.trained = 0

    def add(self, documents: Documents) -> None:
        framed = self._frame.around(documents)
        labels = _labels(framed)
        labels[framed.starts] = IGNORED
        self.written += len(labels)
        self.trained += int((labels != IGNORED).sum())
        columns = [framed.input_ids, labels, np.ones(len(labels), np.int32)]
        columns += [framed.values[name] for name in self._columns]
        self._rows.add([framed.doc_ids, *(_lists(values, framed.lengths) for values in columns)])

    def files(self) -> dict[str, bytes]:
        return self._rows.files()


class WeightsWriter:
    """`.parquet`, one row per document: doc_id string · input_ids list<int32> · loss_weights list<float32>.

    loss_weights[i] is 1 if the prediction of token i + 1 is trained on, else 0: the weights are
    shifted already, as Levanter's `prebuilt` format takes them. The last weight of a row is 0.
    weighted: the weights of a selection, from 0 to 1, are taken in place of the mask.
    """

    def __init__(self, frame: Frame, *, weighted: bool = False) -> None:
        schema = pa.schema([_DOC_ID, ("input_ids", IDS), ("loss_weights", FLOATS)])
        self._frame, self._weighted, self._rows = frame, weighted, _Rows(schema)
        self.written = self.trained = 0

    def add(self, documents: Documents) -> None:
        framed = self._frame.around(documents)
        mask = framed.mask.copy()
        mask[framed.starts] = False  # nothing comes before it
        own = np.where(mask, framed.values[WEIGHT], 0) if self._weighted else mask
        weights = np.append(own[1:], False).astype(np.float32)
        self.written += len(mask)
        self.trained += int(mask.sum())
        columns = [list_column(values, framed.lengths) for values in (framed.input_ids, weights)]
        self._rows.add([framed.doc_ids, *columns])

    def files(self) -> dict[str, bytes]:
        return self._rows.files()


class BlocksWriter:
    """`.parquet`, one row per block of exactly `block_size` tokens, documents one after the other.

    The columns are input_ids, labels, position_ids, document_ids and seq_lengths, each list<int32>.
    A block begins with the last token of the block before it, as context, so that each token is a
    target exactly once. labels are those of `LabelsWriter`, with -100 at the first place of the
    block. position_ids count from 0 in each document and begin again with each block, as
    variable-length attention needs it. document_ids number the documents of a block from 0, and
    seq_lengths are the tokens of each of them. The last block is padded with `pad_id` and labels of
    -100, as a document of its own. A block without any label is left out. Further columns are
    list<float32>, with null where a token has no number.
    """

    def __init__(self, frame: Frame, *, block_size: int, pad_id: int, columns: Sequence[str] = ()) -> None:
        self._frame, self._size, self._pad_id, self._columns = frame, block_size, pad_id, columns
        self._rows = _Rows(pa.schema([*((name, IDS) for name in (*_BLOCK, "seq_lengths")), *_floats(columns)]))
        self._rest = np.zeros((len(_BLOCK), 0), np.int32)
        self._numbers = np.zeros((len(columns), 0), np.float32)
        self._documents = self._blocks = 0
        self.written = self.trained = 0

    def add(self, documents: Documents) -> None:
        framed = self._frame.around(documents)
        place = np.arange(len(framed.input_ids)) - np.repeat(framed.starts, framed.lengths)
        number = np.repeat(np.arange(len(framed.lengths)) + self._documents, framed.lengths)
        new = np.stack([framed.input_ids, _labels(framed), place, number]).astype(np.int32)
        self._documents += len(framed.lengths)
        self._append(new, [framed.values[name] for name in self._columns])
        self._cut()

    def files(self) -> dict[str, bytes]:
        context = min(self._blocks, 1)
        if (n_rest := self._rest.shape[1]) > context:
            n_pad = self._size - n_rest
            number = np.full(n_pad, self._rest[3, -1] + 1)
            padding = [np.full(n_pad, self._pad_id), np.full(n_pad, IGNORED), np.arange(n_pad), number]
            self._append(np.stack(padding).astype(np.int32), [np.full(n_pad, np.nan)] * len(self._columns))
            self._cut()
        return self._rows.files()

    def _append(self, new: np.ndarray, numbers: list[np.ndarray]) -> None:
        self._rest = np.concatenate([self._rest, new], axis=1)
        more = np.array(numbers, np.float32).reshape(len(self._columns), new.shape[1])
        self._numbers = np.concatenate([self._numbers, more], axis=1)

    def _cut(self) -> None:
        """Moves all whole blocks from the rest to the rows."""
        step = self._size - 1
        n_blocks = max(0, (self._rest.shape[1] - 1) // step)
        if not n_blocks:
            return
        places = np.arange(n_blocks)[:, None] * step + np.arange(self._size)
        blocks, numbers = self._rest[:, places], self._numbers[:, places]
        _, labels, place, number = blocks
        labels[:, 0] = IGNORED
        number -= number[:, :1].copy()
        place -= np.where(number == 0, place[:, :1].copy(), 0)
        self._rest = self._rest[:, n_blocks * step :].copy()
        self._numbers = self._numbers[:, n_blocks * step :].copy()
        self._blocks += n_blocks
        trains = (labels != IGNORED).any(axis=1)  # the others' mean loss would be 0 / 0
        lengths = np.full(int(trains.sum()), self._size)
        self.written += int(lengths.sum())
        self.trained += int((labels != IGNORED).sum())
        columns = [_lists(values[trains].ravel(), lengths) for values in (*blocks, *numbers)]
        self._rows.add([*columns[: len(_BLOCK)], _part_lengths(number[trains]), *columns[len(_BLOCK) :]])


_DOC_ID = pa.field("doc_id", pa.string(), nullable=False)
_BLOCK = ("input_ids", "labels", "position_ids", "document_ids")


def _floats(columns: Sequence[str]) -> list[tuple[str, pa.DataType]]:
    return [(name, FLOATS) for name in columns]


def _lists(values: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """A column of lists, in which NaN is null."""
    if values.dtype.kind == "f":
        return list_column(pa.array(values.astype(np.float32), from_pandas=True), lengths)
    return list_column(values, lengths)


def _part_lengths(number: np.ndarray) -> pa.ListArray:
    """The tokens of each document of each block. number: document of each token, int32[n_blocks, size]."""
    begins = np.ones(number.shape, bool)
    begins[:, 1:] = number[:, 1:] != number[:, :-1]
    lengths = np.diff(np.append(np.flatnonzero(begins), number.size))
    return list_column(lengths.astype(np.int32), begins.sum(axis=1))


class _Rows:
    """A Parquet file in memory, with a row group for each table."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._sink, self._any = schema, io.BytesIO(), False
        leaves = {field.name: f"{field.name}.list.element" for field in schema if field.type == IDS}
        counting = leaves.pop("position_ids", None)
        self._writer = pq.ParquetWriter(
            self._sink,
            schema,
            compression="zstd",
            use_dictionary=list(leaves.values()),
            column_encoding={counting: "DELTA_BINARY_PACKED"} if counting else None,
            write_page_checksum=True,
        )

    def add(self, columns: list[pa.Array]) -> None:
        table = pa.Table.from_arrays(columns, schema=self._schema)
        if len(table):
            self._any = True
            self._writer.write_table(table, row_group_size=len(table))

    def files(self) -> dict[str, bytes]:
        self._writer.close()
        return {".parquet": self._sink.getvalue()} if self._any else {}


def _labels(framed: Documents) -> np.ndarray:
    return np.where(framed.mask, framed.input_ids, np.int32(IGNORED))
