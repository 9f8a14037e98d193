"""Searches the texts of documents, which are put together from their token ids, unit by unit."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import duckdb
import numpy as np

from rho_score.errors import InputError, RhoScoreError
from rho_score.files.arrow import as_numpy, flat_values, list_lengths
from rho_score.models.vocabulary import Vocabulary
from rho_score.viewing.listing import Filter
from rho_score.viewing.shown_store import ShownStore

MOST_FOUND = 1000
LONGEST_QUERY = 500


@dataclass
class Search:
    """A search and what it found so far. Documents are searched in corpus order."""

    text: str
    whole: bool
    """True if the index was ready, so that no document is left out."""
    of: int = 0
    """The documents that are to be searched."""
    searched: int = 0
    units: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    """With `units`, the places of the documents that were found."""
    done: bool = False
    error: str = ""
    stop: threading.Event = field(default_factory=threading.Event)


class TextSearch:
    """The search that a page is at. A new one ends the one before."""

    def __init__(self, shown: ShownStore) -> None:
        self.shown = shown
        self._lock = threading.Lock()
        self._found: dict[tuple[str, Filter, bool], Search] = {}
        self._thread: threading.Thread | None = None

    def find(self, text: str, chosen: Filter) -> Search:
        """The search for a text among some documents: begun now, or earlier and perhaps done.

        Those that are not indexed yet are not searched. The same search is begun again once all are.
        """
        if len(text) > LONGEST_QUERY:
            raise InputError(
                f"a text to search for has at most {LONGEST_QUERY} characters, but this one has {len(text)}."
            )
        ready = self.shown.index.progress.ready
        key = text, chosen, ready
        with self._lock:
            if (found := self._found.get(key)) is not None and not found.stop.is_set():
                return found
            self._end()
            search = self._found[key] = Search(text, whole=ready)
            self._thread = threading.Thread(target=self._run, args=(search, chosen), name="search", daemon=True)
            self._thread.start()
        return search

    def close(self) -> None:
        """Ends the search that is running."""
        with self._lock:
            self._end()
        if self._thread is not None:
            self._thread.join()

    def _end(self) -> None:
        for key, search in list(self._found.items()):
            if not search.done:
                search.stop.set()
            if search.stop.is_set() or len(self._found) > 16:
                del self._found[key]

    @cached_property
    def _texts(self) -> "_Texts":
        return _Texts(self.shown)

    def _run(self, search: Search, chosen: Filter) -> None:
        try:
            self._search(search, chosen)
        except (RhoScoreError, OSError, IndexError, duckdb.Error) as error:  # IndexError: an id beyond the vocabulary
            search.error = str(error)
        finally:
            search.done = True

    def _search(self, search: Search, chosen: Filter) -> None:
        where, values = chosen.sql()
        ((search.of,),) = self.shown.index.rows(f"select count(*) from documents where {where}", values)
        units = [
            u for (u,) in self.shown.index.rows(f"select distinct unit from documents where {where} order by 1", values)
        ]
        texts, query = self._texts, search.text.encode().lower()
        for unit in units:
            places = self.shown.index.rows(
                f"select row from documents where {where} and unit = ? order by row", [*values, unit]
            )
            wanted = np.array([row for (row,) in places])
            for first, table in self.shown.store.row_groups(self.shown.unit_names[unit], ["input_ids"]):
                mine = wanted[(wanted >= first) & (wanted < first + len(table))]
                ids = table["input_ids"].take(mine - first)
                for row in texts.holding(query, as_numpy(flat_values(ids)), list_lengths(ids)):
                    if search.stop.is_set() or len(search.rows) == MOST_FOUND:
                        return
                    search.units.append(unit)
                    search.rows.append(int(mine[row]))
                if search.stop.is_set():
                    return
                search.searched += len(mine)


class _Texts:
    """Puts texts together from token ids: from the bytes of each token, where the tokenizer keeps them."""

    def __init__(self, shown: ShownStore) -> None:
        self._tokenizer = shown.tokenizer
        try:
            self._vocabulary: Vocabulary | None = Vocabulary.of(self._tokenizer)
        except InputError:
            self._vocabulary = None

    def holding(self, query: bytes, ids: np.ndarray, lengths: np.ndarray) -> Iterator[int]:
        """Yields the numbers of the documents whose text holds a text, in which ASCII letters are in lower case."""
        if not len(ids):
            return
        if self._vocabulary is not None:
            texts = self._vocabulary.text_bytes(ids, lengths)
            sizes = self._vocabulary.byte_lengths(ids, lengths)
            ends = np.cumsum(np.concatenate([[0], sizes]))[np.cumsum(lengths)]
        else:
            decoded = [str(self._tokenizer.decode(part)).encode() for part in np.split(ids, np.cumsum(lengths)[:-1])]
            texts, ends = np.frombuffer(b"".join(decoded), np.uint8), np.cumsum([len(text) for text in decoded])
        whole, at = texts.tobytes().lower(), 0
        while (at := whole.find(query, at)) >= 0:
            row = int(np.searchsorted(ends, at, side="right"))
            if at + len(query) <= ends[row]:
                yield row
                at = int(ends[row])
            else:
                at += 1  # it lies across two documents
