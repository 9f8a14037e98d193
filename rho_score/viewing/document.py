"""One document with every number of every token, as the page asks for it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from rho_score.files.arrow import as_numpy
from rho_score.models.pieces import text_pieces
from rho_score.safe_text import shown_name, visible
from rho_score.viewing.shown_store import ShownStore

MOST_TOKENS = 200_000
"""Of one document; the page says if there are more."""
_JOINERS = "\u200c\u200d"  # invisible, but they change the shape of the letters beside them


def document(shown: ShownStore, unit: int, row: int) -> dict[str, Any]:
    """The document at a row of a unit.

    text, starts: of each piece, which is one or more tokens that make up whole characters, with the
    place of its first token. ids: of each token. values: of each token by layer; None where it has none.

    Raises:
        IndexError: there is no such document.
        InputError: the tokenizer does not load.
    """
    rows = _rows(shown, unit, row)
    one = rows[""]
    doc_id = one["doc_id"][0].as_py()
    group = one["group"][0].as_py() if shown.store.grouped else None
    every = _list(one["input_ids"])
    ids = every[:MOST_TOKENS]
    pieces = text_pieces(shown.tokenizer, ids.tolist())
    values = {
        layer.key: _numbers(_list(rows[layer.source][layer.column])[: len(ids)])
        for layer in shown.layers
        if layer.source in rows
    }
    about = {
        name: one[name][0].as_py()
        for name in ("doc_score", "kept", "bytes", "ref_bits_per_byte", "base_bits_per_byte")
        if name in one.column_names
    }
    return {
        "unit": unit,
        "row": row,
        "doc_id": shown_name(doc_id),
        "group": shown_name(group) if shown.store.grouped else None,
        "place": visible(f"{shown.unit_names[unit]}, row {row}"),
        "tokens": len(every),
        "text": [visible_text(piece.text) or f"‹{ids[piece.start]}›" for piece in pieces],
        "starts": [piece.start for piece in pieces],
        "ids": ids.tolist(),
        "values": values,
        "about": about,
        "candidates": [name or "this store" for name in rows if "top_ids" in rows[name].column_names],
    }


def candidates(shown: ShownStore, unit: int, row: int, token: int) -> dict[str, list[tuple[str, float]]]:
    """The likeliest tokens at one place of a document, with their log-probabilities, by score set."""
    if token < 0:
        raise IndexError(f"there is no token {token}")
    found = {}
    for name, there in _rows(shown, unit, row).items():
        if "top_ids" in there.column_names:
            top_ids, top_log_p = (there[column][0].as_py()[token] for column in ("top_ids", "top_log_p"))
            texts = [token_text(shown, i) for i in top_ids or []]
            found[name or "this store"] = list(zip(texts, top_log_p or [], strict=True))
    return found


def same_document(shown: ShownStore, unit_name: str, row: int, doc_id: str) -> tuple[int, int] | None:
    """Where another store's document is in this one, by its id: unit and row; None if it is not found."""
    number = shown.unit_numbers.get(unit_name)
    if number is not None:
        try:
            first, table = shown.row_group("", number, row)
            if table["doc_id"][row - first].as_py() == doc_id:
                return number, row
        except IndexError:
            pass
    found = shown.index.rows("select unit, row from documents where doc_id = ? order by all limit 1", [doc_id])
    return (found[0][0], found[0][1]) if found else None


def raw_id(shown: ShownStore, unit: int, row: int) -> str:
    """The id of the document at a row, as it is stored; raises IndexError if there is none."""
    first, table = shown.row_group("", unit, row)
    return str(table["doc_id"][row - first].as_py())


def token_text(shown: ShownStore, token_id: int) -> str:
    """The text of a token by itself, fit to be shown; a part of a character as its bytes."""
    return "".join(visible_text(piece.text) for piece in text_pieces(shown.tokenizer, [token_id])) or f"‹{token_id}›"


def visible_text(text: str) -> str:
    """`text` with control and formatting characters made visible.

    Joiners stay, and line breaks and tabs are kept behind a sign.
    """
    if text.isascii() and text.isprintable():
        return text
    signs = {"\n": "↵\n", "\t": "⇥\t"}
    return "".join(signs.get(c) or (c if c in _JOINERS else visible(c)) for c in text)


def _rows(shown: ShownStore, unit: int, row: int) -> Mapping[str, pa.Table]:
    """The row of a document in the store (""), and in the score sets behind it that hold the same document there."""
    rows = {name: group.table.slice(row - group.first_row, 1) for name, group in shown.row_groups(unit, row).items()}
    doc_id, n_tokens = rows[""]["doc_id"][0].as_py(), len(_list(rows[""]["input_ids"]))

    def same(name: str) -> bool:
        column = shown.behind[name].score_column
        return rows[name]["doc_id"][0].as_py() == doc_id and len(_list(rows[name][column])) == n_tokens

    return {name: there for name, there in rows.items() if not name or same(name)}


def _list(column: pa.ChunkedArray) -> np.ndarray:
    """The numbers of the one list of a column of one row: NaN for nulls, 0 and 1 for booleans; empty if the list is null."""
    values = column.combine_chunks().flatten()
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if values.null_count:
        values = values.cast(pa.float64()).fill_null(float("nan"))
    return as_numpy(values)


def _numbers(values: np.ndarray) -> list[Any]:
    """Numbers as the page takes them: rounded to 6 digits, None where there is none, infinite ones as text."""
    if values.dtype.kind in "biu":
        return list(values.astype(np.int64).tolist())
    wide = values.astype(np.float64)
    usable = np.isfinite(wide) & (wide != 0)
    places = 5 - np.floor(np.log10(np.abs(wide, where=usable, out=np.ones_like(wide)))).astype(int)
    unit = 10.0 ** np.abs(places)
    rounded = np.where(places >= 0, np.round(wide * unit) / unit, np.round(wide / unit) * unit)
    found = np.where(usable, rounded, wide).astype(object)
    for special, shown in ((np.isnan(wide), None), (wide == np.inf, "inf"), (wide == -np.inf, "-inf")):
        found[special] = shown
    return list(found.tolist())
