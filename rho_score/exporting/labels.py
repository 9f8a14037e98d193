"""Parquet rows and packed blocks with labels, as Hugging Face's Trainer reads them.

It turns arrays into bytes, and uses neither files nor Ray. In every format a mask entry belongs to
the token at its own place, the *target*. A trainer that predicts token i + 1 from tokens 0..i
weighs that prediction with mask[i + 1].
"""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rho_score.files.arrow import list_column
from rho_score.stores.framing import Documents, Frame
from rho_score.stores.schema import IDS

IGNORED = -100  # the label that losses in PyTorch and Hugging Face leave out


class LabelsWriter:
    """`.parquet`, one row per document: doc_id string · input_ids list<int32> · labels list<int32>.

    labels[i] is input_ids[i] where the mask is True, else -100. It is at the place of token i
    itself: Hugging Face's models shift labels, and predict labels[i] from the tokens before it.
    Nothing comes before the first token of a row, so labels[0] is always -100. With a prefix, no
    token is lost by that.
    """

    def __init__(self, frame: Frame) -> None:
        self._frame, self._rows = frame, _Rows(_LABELS)
        self.written = self.trained = 0

    def add(self, documents: Documents) -> None:
        framed = self._frame.around(documents)
        labels = _labels(framed)
        labels[framed.starts] = IGNORED
        self.written += len(labels)
        self.trained += int((labels != IGNORED).sum())
        columns = [list_column(values, framed.lengths) for values in (framed.input_ids, labels)]
        self._rows.add([framed.doc_ids, *columns])

    def files(self) -> dict[str, bytes]:
        return self._rows.files()


class BlocksWriter:
    """`.parquet`, one row per block of exactly `block_size` tokens, documents one after the other.

    The columns are input_ids, labels, position_ids and document_ids, each list<int32>. A block
    begins with the last token of the block before it, as context, so that each token is a target
    exactly once. labels are those of `LabelsWriter`, with -100 at the first place of the block.
    position_ids count from 0 in each document and begin again with each block, as variable-length
    attention needs it. document_ids number the documents of a block from 0. The last block is
    padded with `pad_id` and labels of -100, as a document of its own. A block without any label is
    left out.
    """

    def __init__(self, frame: Frame, *, block_size: int, pad_id: int) -> None:
        self._frame, self._size, self._pad_id, self._rows = frame, block_size, pad_id, _Rows(_BLOCKS)
        self._rest = np.zeros((4, 0), np.int32)  # ids, labels, places, document numbers
        self._documents = self._blocks = 0
        self.written = self.trained = 0

    def add(self, documents: Documents) -> None:
        framed = self._frame.around(documents)
        place = np.arange(len(framed.input_ids)) - np.repeat(framed.starts, framed.lengths)
        number = np.repeat(np.arange(len(framed.lengths)) + self._documents, framed.lengths)
        new = np.stack([framed.input_ids, _labels(framed), place, number]).astype(np.int32)
        self._documents += len(framed.lengths)
        self._rest = np.concatenate([self._rest, new], axis=1)
        self._cut()

    def files(self) -> dict[str, bytes]:
        context = min(self._blocks, 1)
        if (n_rest := self._rest.shape[1]) > context:
            n_pad = self._size - n_rest
            number = np.full(n_pad, self._rest[3, -1] + 1)
            padding = [np.full(n_pad, self._pad_id), np.full(n_pad, IGNORED), np.arange(n_pad), number]
            self._rest = np.concatenate([self._rest, np.stack(padding).astype(np.int32)], axis=1)
            self._cut()
        return self._rows.files()

    def _cut(self) -> None:
        """Moves all whole blocks from the rest to the rows."""
        step = self._size - 1
        n_blocks = max(0, (self._rest.shape[1] - 1) // step)
        if not n_blocks:
            return
        blocks = self._rest[:, np.arange(n_blocks)[:, None] * step + np.arange(self._size)]
        _, labels, place, number = blocks
        labels[:, 0] = IGNORED
        number -= number[:, :1].copy()
        place -= np.where(number == 0, place[:, :1].copy(), 0)
        self._rest = self._rest[:, n_blocks * step :].copy()
        self._blocks += n_blocks
        trains = (labels != IGNORED).any(axis=1)  # the others' mean loss would be 0 / 0
        lengths = np.full(int(trains.sum()), self._size)
        self.written += int(lengths.sum())
        self.trained += int((labels != IGNORED).sum())
        self._rows.add([list_column(values[trains].ravel(), lengths) for values in blocks])


_LABELS = pa.schema([pa.field("doc_id", pa.string(), nullable=False), ("input_ids", IDS), ("labels", IDS)])
_BLOCKS = pa.schema([(name, IDS) for name in ("input_ids", "labels", "position_ids", "document_ids")])


class _Rows:
    """A Parquet file in memory, with a row group for each table."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._sink, self._any = schema, io.BytesIO(), False
        leaves = {name: f"{name}.list.element" for name in schema.names if name != "doc_id"}
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
