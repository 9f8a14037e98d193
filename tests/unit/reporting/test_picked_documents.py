"""Documents are picked as the page says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rho_score.reporting.groups import GroupRow, groups_figure, left_out, sampled_by_group
from rho_score.reporting.picked_documents import SHORTEST, DocumentStats, Picked, pick_documents
from rho_score.reporting.sample import TokenSample


def sample_of(
    scores: list[list[float]], masks: list[list[bool]] | None = None, groups: list[str | None] | None = None
) -> TokenSample:
    lengths = np.array([len(score) for score in scores], np.int64)
    flat = np.array([x for score in scores for x in score], np.float32)
    return TokenSample(
        doc_ids=[str(i) for i in range(len(scores))],
        doc_groups=groups or [None] * len(scores),
        lengths=lengths,
        input_ids=np.zeros(len(flat), np.int32),
        score=flat,
        mask=None if masks is None else np.array([x for mask in masks for x in mask], bool),
        ref_loss=None,
        base_loss=None,
        n_units=1,
        whole=True,
    )


def random_sample(seed: int, n: int, *, masked: bool) -> tuple[TokenSample, list[list[float]], list[list[bool]]]:
    rng = np.random.default_rng(seed)
    scores, masks = [], []
    for _ in range(n):
        size = int(rng.choice([0, 5, SHORTEST, SHORTEST + 1, 60]))
        values = np.round(rng.normal(rng.integers(0, 3), 1, size), 1)
        values[rng.random(size) < 0.05] = math.nan
        scores.append(values.tolist())
        masks.append((rng.random(size) < rng.choice([0, 0.3, 0.5, 1])).tolist())
    groups: list[str | None] = [["a", "b", None][int(i)] for i in rng.integers(0, 3, n)]
    return sample_of(scores, masks if masked else None, groups), scores, masks


def pick(sample: TokenSample, n: int, *, high: bool = True) -> list[Picked]:
    return pick_documents(sample, DocumentStats.of(sample), n, score_name="loss", high=high)


@given(seed=st.integers(0, 1000), n=st.integers(0, 30), masked=st.booleans())
def test_numbers_of_documents_are_those_of_their_tokens(seed: int, n: int, masked: bool) -> None:
    sample, scores, masks = random_sample(seed, n, masked=masked)
    stats = DocumentStats.of(sample)
    for i, (score, mask) in enumerate(zip(scores, masks, strict=True)):
        known = np.array([x for x in np.array(score, np.float32) if not np.isnan(x)], np.float64)
        assert stats.scored[i] == len(known)
        wanted = (known.mean(), known.std()) if len(known) else (math.nan, math.nan)
        np.testing.assert_allclose((stats.mean[i], stats.deviation[i]), wanted, rtol=1e-6, atol=1e-9)
        if masked:
            kept = [m for m, x in zip(mask, score, strict=True) if not math.isnan(x)]
            assert stats.share is not None
            np.testing.assert_allclose(stats.share[i], np.mean(kept) if kept else math.nan)
            assert sample.document(i).doc_id == str(i)
            np.testing.assert_array_equal(sample.document(i).score, np.array(score, np.float32))


@given(seed=st.integers(0, 1000), n=st.integers(0, 40), size=st.integers(0, 50), high=st.booleans())
def test_no_other_document_suits_better_than_those_that_were_picked(seed: int, n: int, size: int, high: bool) -> None:
    sample, scores, masks = random_sample(seed, n, masked=True)
    sign = 1 if high else -1

    def rank(title: str, i: int) -> tuple[float, float]:
        known = [(x, m) for x, m in zip(np.array(scores[i], np.float32), masks[i], strict=True) if not np.isnan(x)]
        share = sum(m for _, m in known) / len(known)
        values = np.array([x for x, _ in known], np.float64)
        return {
            "Most kept": (-share, -sign * float(values.mean())),
            "Least kept": (share, sign * float(values.mean())),
            "Most divided": (abs(share - 0.5), -float(values.std())),
        }[title]

    picked = pick(sample, size, high=high)
    long = {i for i, score in enumerate(scores) if sum(not math.isnan(x) for x in score) >= SHORTEST}
    gone: set[int] = set()
    for way in picked:
        chosen = way.documents.tolist()
        assert len(set(chosen)) == len(chosen)
        assert not gone & set(chosen)
        if way.title == "Random":
            assert way is picked[-1]
        else:
            others = long - gone - set(chosen)
            assert set(chosen) <= long
            for i in others:
                for j in chosen:
                    share, tie = rank(way.title, j)
                    assert (share, tie) <= (rank(way.title, i)[0], rank(way.title, i)[1] + 1e-9)
        gone |= set(chosen)
    assert len(gone) == min(size, sum(bool(score) for score in scores))


def test_ways_written_out() -> None:
    size = SHORTEST
    scores = [[float(i)] * size for i in range(5)] + [[0.0, 4.0] * (size // 2), [9.0] * (size - 1), []]
    titles = [(way.title, way.documents.tolist()) for way in pick(sample_of(scores), 4)]
    assert titles[:3] == [("Highest loss", [4]), ("Lowest loss", [0]), ("Most varied", [5])]
    assert titles[3][0] == "Random"
    assert titles[3][1][0] in (1, 2, 3, 6)
    shares = [0, 8, 16, 24, 32]
    masks = [[True] * kept + [False] * (size - kept) for kept in shares]
    masked = sample_of([[1.0] * size] * 5, masks)
    titles = [(way.title, way.documents.tolist()) for way in pick(masked, 3)]
    assert titles == [("Most kept", [4]), ("Least kept", [0]), ("Most divided", [2])]
    notes = [way.note for way in pick(masked, 3, high=False)]
    assert "lowest mean loss" in notes[0]
    assert "highest mean loss" in notes[1]


def test_random_documents_come_of_each_group_in_turn() -> None:
    groups: list[str | None] = ["a"] * 50 + ["b"] * 2 + [None] * 2
    sample = sample_of([[1.0]] * 54, groups=groups)
    picked = pick(sample, 8)
    assert [way.title for way in picked] == ["Random"]
    assert sorted(str(groups[i]) for i in picked[0].documents[:3].tolist()) == ["None", "a", "b"]
    assert [groups[i] for i in picked[0].documents[6:].tolist()] == ["a", "a"]
    assert "one of each group in turn" in picked[0].note
    assert "group" not in pick(sample_of([[1.0]] * 5), 3)[0].note


@pytest.mark.parametrize("masked", [True, False])
def test_groups_that_a_figure_leaves_out_are_told(masked: bool) -> None:
    rows = [
        GroupRow(
            group=f"g{i}", documents=1, tokens=100 - i, **({"kept": 10, "share": 0.1} if masked else {"mean": 1.0})
        )
        for i in range(20)
    ]
    words = left_out(rows, 12)
    held = sum(100 - i for i in range(12, 20))
    assert words.startswith(f"The 12 largest of 20 groups; the others together hold {100 * held / 1810:.1f}% of the")
    assert (f"{100 * 80 / held:.1f}% of these are kept" in words) == masked
    assert left_out(rows[:12], 12) == ""
    figure = groups_figure(rows, label="x")
    assert figure is not None
    assert figure[1] == words
    assert len(figure[0].axes[0].patches) == 12


def test_sampled_groups_by_hand() -> None:
    sample = sample_of([[1.0, 3.0], [5.0], [math.nan], []], groups=["a", None, "b", "a"])
    rows = {row.group: (row.documents, row.tokens, row.mean) for row in sampled_by_group(sample)}
    assert rows == {"a": (2, 2, 2.0), "(none)": (1, 1, 5.0), "b": (1, 1, None)}
    assert groups_figure([row for row in sampled_by_group(sample) if row.group == "b"], label="x") is None
