"""Finds the documents of a store in the original shards.

Rows are matched by place and by id. The documents of a unit in input order, without those that were
quarantined, must be the selection's documents in their order. Anything else is an error that names
the unit and the first difference.
"""

import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from rho_score.corpus.columns import Columns
from rho_score.corpus.documents import check_unchanged, documents
from rho_score.corpus.plan import root_of
from rho_score.corpus.units import Unit
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.arrow import as_numpy
from rho_score.files.folder import Folder
from rho_score.stores.layout import quarantine_name
from rho_score.stores.selection import Selection


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The corpus that a selection was made from.

    moved: True if the shards are copies, whose times of change and etags differ.
    """

    root: Folder
    moved: bool
    columns: Columns
    quarantine: Folder
    """The folder of the score set, which lists the quarantined documents."""

    def check(self, unit: Unit) -> None:
        """Raises RhoScoreError if the unit's shard is not the one that was scored."""
        if not self.moved:
            check_unchanged(self.root, unit)
        elif (size := self.root.info(unit.shard).size) != unit.size:
            raise RhoScoreError(
                f"{self.root.url}/{unit.shard} has {size} bytes, but the shard that was scored had {unit.size}. "
                "Give the same files with --input."
            )


def corpus_root(url: str) -> Folder:
    """The folder that shards are named from, if a corpus is given as a folder, a file or a glob."""
    root, kind = root_of(url)
    if kind == "folder" and not root.exists():
        raise InputError(f"there is nothing at {url}. Give the place of the corpus with --input.")
    return root


def rows_to_keep(corpus: Corpus, selection: Selection, unit: Unit) -> np.ndarray:
    """True for each document of the unit that is kept, bool[n_documents].

    Documents are in input order, and the quarantined ones are included.

    Raises:
        RhoScoreError: the shard has changed, or its documents are not those of the selection.
    """
    table = selection.unit_table(unit.unit, ["doc_id", "kept"])
    places = scored_places(corpus, table["doc_id"].to_pylist(), unit)
    kept = np.append(as_numpy(table["kept"]), False)  # the place -1 has none
    found: np.ndarray = kept[places]
    return found


def scored_places(corpus: Corpus, chosen: list[str], unit: Unit) -> np.ndarray:
    """The row of a store that each document of a unit has, int64[n_documents]; -1 if it was quarantined.

    Documents are in input order. chosen: the ids of the store's rows.

    Raises:
        RhoScoreError: the shard has changed, or its documents are not those of the store.
    """
    corpus.check(unit)
    found = [(document.doc_id, document.error) for document in documents(corpus.root, unit, corpus.columns)]
    lost = _lost_in_scoring(corpus, unit, found)
    places, at = np.full(len(found), -1, np.int64), 0
    for row, (doc_id, error) in enumerate(found):
        expected = chosen[at] if at < len(chosen) else None
        if error is not None:
            continue
        if lost[doc_id]:
            if doc_id == expected:
                raise _mismatch(
                    corpus, unit, row, f"the id {doc_id!r} is both scored and quarantined, but it must be unique"
                )
            lost[doc_id] -= 1
            continue
        if doc_id != expected:
            raise _mismatch(corpus, unit, row, f"the input has {doc_id!r}, but the selection has {expected!r}")
        places[row] = at
        at += 1
    if at < len(chosen):
        raise _mismatch(corpus, unit, len(found), f"the input ends, but the selection has {chosen[at]!r}")
    return places


def _lost_in_scoring(corpus: Corpus, unit: Unit, found: list[tuple[str, str | None]]) -> Counter[str]:
    """How many documents of each id could be read but were quarantined in scoring."""
    name = quarantine_name(unit.unit)
    if not corpus.quarantine.exists(name):
        listed: Counter[str] = Counter()
    else:
        listed = Counter(
            pq.ParquetFile(io.BytesIO(corpus.quarantine.read(name))).read(["doc_id"])["doc_id"].to_pylist()
        )
    unread = Counter(doc_id for doc_id, error in found if error is not None)
    if missing := unread - listed:
        doc_id = next(iter(missing))
        row = next(i for i, (found_id, error) in enumerate(found) if found_id == doc_id and error is not None)
        raise _mismatch(
            corpus, unit, row, f"{doc_id!r} cannot be read now, but it could when it was scored: {found[row][1]}"
        )
    return listed - unread


def _mismatch(corpus: Corpus, unit: Unit, row: int, what: str) -> RhoScoreError:
    return RhoScoreError(
        f"unit {unit.unit} ({corpus.root.url}/{unit.shard}), document {row} from its start: {what}. This corpus is not the "
        "one that was scored. Give the right corpus with --input, or its score set with --scores."
    )
