"""Clusters against a breadth-first search, in any order of the pairs."""

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rho_score.deduplicating.clusters import Clusters
from rho_score.deduplicating.decide import Decisions


def _search(n: int, pairs: list[tuple[int, int]]) -> list[int]:
    """The smallest document that can be reached from each document."""
    neighbours: dict[int, set[int]] = {i: set() for i in range(n)}
    for a, b in pairs:
        neighbours[a].add(b)
        neighbours[b].add(a)
    found = [-1] * n
    for start in range(n):
        if found[start] >= 0:
            continue
        queue = [start]
        while queue:
            one = queue.pop(0)
            if found[one] < 0:
                found[one] = start
                queue += sorted(neighbours[one])
    return found


@given(
    st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))),
    st.randoms(),
)
def test_clusters_are_the_connected_documents(case: tuple[int, list[tuple[int, int]]], draw: object) -> None:
    n, pairs = case
    expected = _search(n, pairs)
    for _ in range(2):
        clusters = Clusters(n)
        for at in range(0, len(pairs), 7):
            some = np.array(pairs[at : at + 7], np.int64).reshape(-1, 2)
            clusters.add(some[:, 0], some[:, 1])
        assert clusters.all_roots().tolist() == expected
        draw.shuffle(pairs)  # type: ignore[attr-defined]


def test_a_long_chain_in_the_worst_order() -> None:
    n = 3_000
    clusters = Clusters(n)
    for i in reversed(range(n - 1)):
        clusters.add(np.array([i + 1]), np.array([i]))
    assert (clusters.all_roots() == 0).all()


def test_memory_of_the_driver() -> None:
    """At most 24 bytes for each document, with every second document a duplicate."""
    n = 4_000_000
    tracemalloc.start()
    clusters = Clusters(n)
    for at in range(0, n, 1 << 16):
        first = np.arange(at, min(at + (1 << 16), n), 2)
        clusters.add(first, first + 1)
    decisions = Decisions(roots=clusters.all_roots(), equal=np.zeros(n, np.uint16), starts=np.array([0, n]))
    assert len(decisions.largest(10)) == 10
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * n


def test_largest_clusters_and_their_members() -> None:
    roots = np.array([0, 0, 2, 0, 2, 5, 6, 6, 6, 6])
    decisions = Decisions(roots=roots, equal=np.zeros(10, np.uint16), starts=np.array([0, 10]))
    assert decisions.largest(2) == [(6, 4), (0, 3)]
    assert decisions.largest(9) == [(6, 4), (0, 3), (2, 2)]
    assert decisions.members(6, 2) == [7, 8]
    assert decisions.members(0, 9) == [1, 3]
