"""The parts of the proof: its texts, its noise and oracle, its commands, and its statistics."""

import itertools
import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proof.corpora import Corpora, Noise
from proof.grid import Grid, Run, parameters
from proof.oracle import auc, noise_of
from proof.page import Page
from proof.published import PUBLISHED
from proof.results import SCHEMA
from proof.sizes import FULL, GPU, LIVE, ORACLE, SHORT, STORED, TEST, A, B, Condition, Size
from proof.statistics import Outcome, bootstrap
from proof.texts import LANGUAGES, Document
from rho_score.cli.entry import parse
from rho_score.config import TrainConfig


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    """The texts of the tests' size."""
    made = Corpora(tmp_path_factory.mktemp("proof"), TEST)
    made.build((A, B))
    return made


def _texts(corpora: Corpora, name: str) -> dict[str, str]:
    path = corpora.folder / f"texts/{name}.jsonl"
    return {row["id"]: row["text"] for row in map(json.loads, path.read_text().rstrip("\n").split("\n"))}


def test_no_text_is_in_two_places(corpora: Corpora) -> None:
    names = ("test", "validation", "others", "reference", f"corpora/{A.name}", f"corpora/{B.name}")
    files = {name: {doc_id.split(":")[0].rsplit("/", 1)[0] for doc_id in _texts(corpora, name)} for name in names[:5]}
    for one, other in itertools.combinations(names[:5], 2):
        assert not files[one] & files[other] or "others" in (one, other)  # whole source files, of the target
    for name in names[:4]:
        assert not set(_texts(corpora, name)) & (set(_texts(corpora, names[4])) | set(_texts(corpora, names[5])))


def test_a_corpus_has_the_shares_that_its_name_says(corpora: Corpora) -> None:
    path = corpora.folder / f"texts/corpora/{B.name}.jsonl"
    rows = list(map(json.loads, path.read_text().rstrip("\n").split("\n")))
    sizes = corpora.count([row["text"] for row in rows])
    share = sum(n for n, row in zip(sizes, rows, strict=True) if row["source"] == "target") / sum(sizes)
    assert 0.05 < share < 0.35  # a corpus of the tests has a document or two of the target
    spans = {row["id"]: row for row in pq.read_table(corpora.folder / f"texts/noise/{A.name}.parquet").to_pylist()}
    noisy = [
        noise_of(text, spans[doc_id]["begin"], spans[doc_id]["end"], corpora.tokenizer)
        for doc_id, text in _texts(corpora, f"corpora/{A.name}").items()
    ]
    assert np.concatenate(noisy).mean() == pytest.approx(0.5, abs=0.1)


@given(words=st.lists(st.sampled_from(["alpha", "be", "gamma-delta", "x", "epsilon,"]), min_size=1, max_size=200))
def test_what_is_not_noise_is_as_it_was(corpora: Corpora, words: list[str]) -> None:
    text = " ".join(words) + "\n"
    noise = Noise(A, ["noch ein Satz", "och en mening till"], corpora)
    made, spans = noise.put_into(text)
    clean, at = [], 0
    for begin, end in spans:
        assert at <= begin < end
        clean.append(made[at:begin])
        at = end
    clean.append(made[at:])
    place = 0
    for part in clean:  # every clean part is in the text, behind the one before it
        place = text.index(part, place) + len(part)
    assert len(made) == sum(map(len, clean)) + sum(end - begin for begin, end in spans)


def test_a_token_is_noise_if_a_character_of_it_is(corpora: Corpora) -> None:
    text = "The matrix of a linear map, with respect to a basis."
    spans = [(4, 9), (30, 33)]
    offsets = corpora.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    wanted = [any(begin < stop and start < end for begin, end in spans) for start, stop in offsets]
    found = noise_of(text, [b for b, _ in spans], [e for _, e in spans], corpora.tokenizer)
    assert found.tolist() == wanted
    assert 0 < sum(wanted) < len(wanted)


@given(rows=st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([float(s) for s, _ in rows]), np.array([p for _, p in rows])
    if positive.all() or not positive.any():
        return
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auc(scores, positive) == pytest.approx(np.mean(pairs))
    assert auc(np.append(scores, np.nan), np.append(positive, True)) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("size", [FULL, SHORT, TEST, GPU])
def test_every_command_is_taken_and_every_arm_has_the_same_seeds(size: Size, tmp_path: Path) -> None:
    grid = Grid(tmp_path, size)
    conditions = (*size.main, *size.others)
    rates = {(c.regime, arm, n): 1e-3 for c in conditions for arm in grid.arms(c) for n in grid.budgets_of(c)}
    runs = grid.runs(rates)
    assert len({run.name for run in runs}) == len(runs)
    for run in [*runs, *grid.tuning()]:
        config = parse(grid.train(run).split())
        assert isinstance(config, TrainConfig)
        assert config.from_scratch != size.pretrained
        assert (config.seed, config.tokens, config.learning_rate) == (run.seed, run.tokens, run.rate)
    for condition in size.main:
        mine = [
            {(r.tokens, r.seed) for r in runs if (r.condition, r.arm) == (condition, arm)}
            for arm in grid.arms(condition)
        ]
        assert all(other == mine[0] for other in mine)
        assert len(mine[0]) == size.seeds * len(size.budgets)


def test_the_tuning_uses_a_seed_of_its_own() -> None:
    grid = Grid(Path("x"), FULL)
    assert {run.seed for run in grid.tuning()}.isdisjoint(range(FULL.seeds))
    assert len(grid.tuning()) == 4 * 2 * (10 + 9)  # the middle length takes the rate of the longest


def test_costs_are_counted_by_hand(corpora: Corpora) -> None:
    grid = Grid(corpora.folder, TEST)
    _ = corpora.tokenizer
    n = parameters(corpora.folder / "model")
    assert n == 4 * 32 * 32 + 3 * 32 * 80 + 768 * 32
    all_, live, stored = (grid.cost(Run(A, arm, 6000, 0, 1e-3), 5900, 12_500) for arm in ("all", LIVE, STORED))
    assert all_ == (6 * n * 5900, 0)
    assert live == (6 * n * 5900, 6 * n * TEST.reference + 2 * n * 5900)
    before = 6 * n * TEST.reference + 2 * n * 12_500 + 6 * n * TEST.base * TEST.batch + 2 * n * 12_500
    assert stored == (6 * n * 5900, before)


def _outcome() -> Outcome:
    """Two seeds of three arms: `all` ends at 5.0 and 5.2, the oracle 0.4 lower, live 0.3 and 0.2 lower."""
    rows = []
    for arm, losses in {
        "all": [(6.0, 6.1), (5.0, 5.2)],
        LIVE: [(4.85, 5.3), (4.7, 5.0)],
        ORACLE: [(5.2, 5.15), (4.6, 4.8)],
    }.items():
        for budget, by_seed in zip((100, 200), losses, strict=True):
            for seed, loss in enumerate(by_seed):
                rows.append(
                    dict.fromkeys(SCHEMA.names, 0.0)
                    | {"condition": A.name, "arm": arm, "budget": budget, "seed": seed, "tuning": False, "test": loss}
                    | {"tokens_seen": budget, "tokens_trained": budget // (1 if arm == "all" else 4)}
                )
    return Outcome(pa.Table.from_pylist(rows, schema=SCHEMA))


def test_gains_shares_and_what_is_enough() -> None:
    outcome = _outcome()
    gain = outcome.gain(A.name, LIVE, 200)
    assert gain.mean == pytest.approx(0.25)
    assert (gain.low, gain.high) == pytest.approx((0.2, 0.3))
    assert str(gain) == "+0.250 (+0.200 to +0.300)"
    assert str(outcome.gain(A.name, "all", 200, over=LIVE)).startswith("−0.250")
    assert outcome.oracle_share(A.name, LIVE, 200) == pytest.approx((0.3 + 0.2) / (0.4 + 0.4))
    reached = outcome.reached(A.name, LIVE)
    assert reached is not None  # at 100, the second seed is above 5.2
    assert reached == (1.0, 0.25)
    assert outcome.reached_in_mean(A.name, LIVE) == (0.5, 0.125)
    assert outcome.best(A.name, 200) == LIVE
    assert outcome.reached(A.name, "all") == (1.0, 1.0)


def test_an_interval_covers_the_mean_of_many() -> None:
    rng = random.Random(0)
    hits = 0
    for _ in range(60):
        interval = bootstrap([rng.gauss(1.0, 0.5) for _ in range(20)])
        hits += interval.low <= 1.0 <= interval.high
    assert hits >= 50


def test_the_published_page_is_made_of_the_published_numbers(tmp_path: Path) -> None:
    page = Page(PUBLISHED)
    assert PUBLISHED.with_suffix(".md").read_text() == page.text()
    figures = page.figures()
    text = page.text()
    assert set(re.findall(r"\(proof/([^)]+\.svg)\)", text)) == set(figures)
    for name in figures:
        assert (PUBLISHED / name).exists()


def test_names_of_conditions() -> None:
    assert [c.name for c in (A, B, Condition(0, 100))] == ["A-noise-50", "B-target-10", "A-noise-0"]
    assert Document("x", LANGUAGES, "text").group == "languages"
