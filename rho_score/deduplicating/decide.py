"""Between the stages: the clusters of similar documents, and what becomes of each document.

All of it is on the driver, with 10 bytes for each document, besides the pairs of one partition.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from rho_score.deduplicating.clusters import Clusters
from rho_score.deduplicating.pairs import PAIRS
from rho_score.deduplicating.sign import PART_BITS
from rho_score.files.arrow import as_numpy
from rho_score.files.folder import Folder
from rho_score.files.parquet import readable

AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What becomes of documents, which are numbered in corpus order.

    roots: the document that is kept in place of each, int64[n]; a kept document's own number.
    equal: how many numbers of their signatures are equal, uint16[n]; `EXACT` for the same text, 0 if
    the two were not compared, because other documents link them. starts: the number of the first
    document of each part, and the number of documents, int64[n_parts + 1].
    """

    roots: np.ndarray
    equal: np.ndarray
    starts: np.ndarray

    def of_part(self, part: int) -> "Decisions":
        """Those of the documents of a part; `roots` are still numbers in the corpus."""
        of = slice(self.starts[part], self.starts[part + 1])
        return Decisions(roots=self.roots[of], equal=self.equal[of], starts=self.starts)

    def largest(self, n: int) -> list[tuple[int, int]]:
        """The clusters with the most documents, at most `n`: (first document, number of documents)."""
        sizes = np.zeros(len(self.roots), np.uint32)
        for at in range(0, len(self.roots), AT_ONCE):
            np.add.at(sizes, self.roots[at : at + AT_ONCE], 1)
        best: list[tuple[int, int]] = []
        for at in range(0, len(sizes), AT_ONCE):
            some = sizes[at : at + AT_ONCE]
            top = np.argsort(-some.astype(np.int64), kind="stable")[:n]
            best += [(at + int(i), int(some[i])) for i in top if some[i] > 1]
            best = sorted(best, key=lambda one: (-one[1], one[0]))[:n]
        return best

    def members(self, root: int, n: int) -> list[int]:
        """The first `n` documents of a cluster that were dropped."""
        found: list[int] = []
        for at in range(root + 1, len(self.roots), AT_ONCE):
            if len(found) >= n:
                break
            found += (np.flatnonzero(self.roots[at : at + AT_ONCE] == root)[: n - len(found)] + at).tolist()
        return found


def decide(output: Folder, partitions: Sequence[str], documents: Sequence[int]) -> Decisions:
    """What the pairs of all partitions mean.

    documents: the number of documents of each part.
    """
    starts = np.concatenate([[0], np.cumsum(documents)]).astype(np.int64)
    clusters = Clusters(int(starts[-1]))
    for name in partitions:
        first, second, _ = _pairs(output, name, starts)
        clusters.add(first, second)
    roots = clusters.all_roots()
    equal = np.zeros(len(roots), np.uint16)
    for name in partitions:
        first, second, numbers = _pairs(output, name, starts)
        direct = roots[second] == first
        np.maximum.at(equal, second[direct], numbers[direct])
    return Decisions(roots=roots, equal=equal, starts=starts)


def _pairs(output: Folder, name: str, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of a partition, by the documents' numbers in the corpus, and their equal numbers."""
    file = f"{PAIRS}/{name}.parquet"
    with readable(output, file), output.open(file) as source:
        table = pq.ParquetFile(source, page_checksum_verification=True).read(use_threads=False)
    first, second = (_number(as_numpy(table[column]), starts) for column in ("first", "second"))
    return first, second, as_numpy(table["equal"])


def _number(places: np.ndarray, starts: np.ndarray) -> np.ndarray:
    number: np.ndarray = starts[places >> PART_BITS] + (places & ((1 << PART_BITS) - 1))
    return number
