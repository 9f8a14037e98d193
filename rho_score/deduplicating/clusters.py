"""Documents that are alike, directly or through others, form a cluster. Pure arithmetic."""

import numpy as np

AT_ONCE = 1 << 20  # documents whose roots are looked up at a time


class Clusters:
    """Union-find over documents 0, 1, …: 8 bytes for each, whatever the number of pairs.

    The parent of a document is never a later one, so the root of a cluster is its first document. The
    clusters do not depend on the order in which pairs are added.
    """

    def __init__(self, n_documents: int) -> None:
        self._parent = np.arange(n_documents)

    def add(self, left: np.ndarray, right: np.ndarray) -> None:
        """Joins the clusters of the documents left[i] and right[i], int64[n_pairs] each."""
        while len(left):
            left, right = self.roots(left), self.roots(right)
            apart = left != right
            low, high = np.minimum(left, right)[apart], np.maximum(left, right)[apart]
            # `high` are roots. One that is to be joined to several takes the first of them, and the next round the others.
            np.minimum.at(self._parent, high, low)
            left, right = low, high

    def roots(self, documents: np.ndarray) -> np.ndarray:
        """The first document of the cluster of each document, int64[n]."""
        found = documents
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                break
            found = above
        self._parent[documents] = found
        return found

    def all_roots(self) -> np.ndarray:
        """The first document of the cluster of every document, int64[n_documents]."""
        for at in range(0, len(self._parent), AT_ONCE):  # the parents of these are earlier, and known already
            self.roots(np.arange(at, min(at + AT_ONCE, len(self._parent))))
        return self._parent
