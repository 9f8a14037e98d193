"""Picks the sampled documents that a page shows, and says how it picked them."""

from dataclasses import dataclass

import numpy as np

from rho_score.ranking.scores import run_sums
from rho_score.reporting.sample import TokenSample

SHORTEST = 32
"""Tokens with a score that a document must have to be picked for its numbers."""


@dataclass(frozen=True, eq=False)
class DocumentStats:
    """Numbers of each document of a sample; the arrays have the shape [n_docs].

    scored: tokens with a score. mean, deviation: of the scores, NaN without any. share: of
    the scored tokens that are kept, NaN without any; None for a score set.
    """

    scored: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    share: np.ndarray | None

    @classmethod
    def of(cls, sample: TokenSample) -> "DocumentStats":
        """The numbers of the documents of a sample. Infinite scores count as no score."""
        present = np.isfinite(sample.score)
        score = np.where(present, sample.score, 0.0).astype(np.float64)
        scored = run_sums(present, sample.lengths).astype(np.float64)
        with np.errstate(invalid="ignore"):
            mean = run_sums(score, sample.lengths) / scored
            from_mean = np.where(present, score - np.repeat(mean, sample.lengths), 0.0)
            deviation = np.sqrt(run_sums(from_mean**2, sample.lengths) / scored)
            share = None if sample.mask is None else run_sums(sample.mask & present, sample.lengths) / scored
        return cls(scored.astype(np.int64), mean, deviation, share)


@dataclass(frozen=True, eq=False)
class Picked:
    """Documents that were picked in one way.

    title, note: what a page says about the way. documents: their places in the sample, int64[n].
    """

    title: str
    note: str
    documents: np.ndarray


def pick_documents(
    sample: TokenSample, stats: DocumentStats, n: int, *, score_name: str, high: bool = True, seed: int = 0
) -> list[Picked]:
    """Picks at most `n` documents in four ways, about as many each; none twice.

    high: True if high scores are kept. Random documents fill what the other ways leave.
    """
    ways = _ways(stats, score_name, high=high)
    taken = sample.lengths == 0
    long = stats.scored >= SHORTEST
    found = []
    for i, (title, note, keys) in enumerate(ways):
        size = n // (len(ways) + 1) + (i < n % (len(ways) + 1))
        order = np.lexsort(keys[::-1])
        chosen = order[(long & ~taken)[order]][:size]
        taken[chosen] = True
        found.append(Picked(title, f"{note} Documents with at least {SHORTEST} tokens that have a score.", chosen))
    left = n - sum(len(picked.documents) for picked in found)
    chosen = _in_turn(np.flatnonzero(~taken), sample.doc_groups, seed)[:left]
    grouped = any(group is not None for group in sample.doc_groups)
    of_each = "one of each group in turn, " if grouped else ""
    found.append(Picked("Random", f"Drawn at random, {of_each}from the documents that are not above.", chosen))
    return [picked for picked in found if len(picked.documents)]


def _ways(stats: DocumentStats, score_name: str, *, high: bool) -> list[tuple[str, str, list[np.ndarray]]]:
    """The title, the note and the keys of each way; the smallest keys come first."""
    mean, varied = stats.mean, -stats.deviation
    if stats.share is None:
        return [
            (f"Highest {score_name}", f"The highest mean {score_name}.", [-mean]),
            (f"Lowest {score_name}", f"The lowest mean {score_name}.", [mean]),
            ("Most varied", f"The largest standard deviation of the {score_name} of a document's tokens.", [varied]),
        ]
    best, first, last = (-mean, "highest", "lowest") if high else (mean, "lowest", "highest")
    return [
        (
            "Most kept",
            f"The largest share of tokens kept; among equals, the {first} mean {score_name}.",
            [-stats.share, best],
        ),
        (
            "Least kept",
            f"The smallest share of tokens kept; among equals, the {last} mean {score_name}.",
            [stats.share, -best],
        ),
        (
            "Most divided",
            f"The share of tokens kept that is nearest to one half; among equals, the largest standard deviation of "
            f"the {score_name}.",
            [np.abs(stats.share - 0.5), varied],
        ),
    ]


def _in_turn(documents: np.ndarray, groups: list[str | None], seed: int) -> np.ndarray:
    """These documents in random order, one of each group in turn."""
    shuffled = np.random.default_rng(seed).permutation(documents)
    seen: dict[str | None, int] = {}
    rounds = []
    for i in shuffled.tolist():
        rounds.append(seen.get(groups[i], 0))
        seen[groups[i]] = rounds[-1] + 1
    in_turn: np.ndarray = shuffled[np.argsort(np.array(rounds, np.int64), kind="stable")]
    return in_turn
