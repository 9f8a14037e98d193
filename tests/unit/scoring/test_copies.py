"""Documents with the same tokens go to the scorer once, and all of them get what it returns."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rho_score.inference.scored import Scored
from rho_score.scoring.copies import first_of_each, score_once
from rho_score.stores.counts import ScoreCounts


@given(st.lists(st.lists(st.integers(0, 2), max_size=3), max_size=12))
def test_every_document_gets_what_its_tokens_got(documents: list[list[int]]) -> None:
    ids = [np.array(document, np.int32) for document in documents]
    calls = []

    def score(some: Sequence[np.ndarray]) -> tuple[Scored, dict[int, str]]:
        """The loss tells the place among those that were scored. Documents that begin with 2 fail."""
        calls.append([of.tolist() for of in some])
        loss = [np.full(len(of), i, np.float32) for i, of in enumerate(some)]
        failed = {i: f"document {of.tolist()}" for i, of in enumerate(some) if of[:1].tolist() == [2]}
        return Scored(loss=loss, signals={"rank": [-of for of in loss]}, rescored=1, positions=9, padding=2), failed

    first = first_of_each(ids)
    assert first == [documents.index(document) for document in documents]
    scored, failed = score_once(ids, first, score)
    (distinct,) = calls
    assert distinct == [document for i, document in enumerate(documents) if document not in documents[:i]]
    assert [of.tolist() for of in scored.loss] == [[distinct.index(of)] * len(of) for of in documents]
    assert [of.tolist() for of in scored.signals["rank"]] == [[-distinct.index(of)] * len(of) for of in documents]
    assert failed == {i: f"document {of}" for i, of in enumerate(documents) if of[:1] == [2]}
    assert (scored.rescored, scored.positions, scored.padding) == (1, 9, 2)


def test_counts_of_older_and_newer_versions_are_read() -> None:
    older = {"documents": 3, "scored": 2, "quarantined": 1, "rescored": 0, "tokens": 5, "losses": 4, "total_nats": 1.5}
    assert ScoreCounts.of({**older, "units": 1}).copied == 0
    assert ScoreCounts.of({**older, "copied": 1, "newer": 7}) == ScoreCounts(**older, copied=1)
