"""A fault of each sort in a run of `score` and one of `select`; in the long form each moment of a run has its own, and a worker takes
too much memory where there is room for it. `make chaos` strikes a hundred."""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.chaos.cluster import ChaosCluster, room_for_a_hog
from tests.chaos.faults import Command, kind_named, schedule
from tests.chaos.runs import (
    DONE,
    LIMIT_S,
    N_DOCUMENTS,
    Disturbed,
    Outcome,
    command,
    compare,
    n_published,
    prepare,
    tail,
    undisturbed,
)
from tests.stores import cut, random_documents, write_scores


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosCluster]:
    """A cluster whose processes die, with the undisturbed score set and selection."""
    root = tmp_path_factory.mktemp("chaos")
    prepare(root)
    with ChaosCluster(root) as cluster:
        undisturbed(cluster, "score")
        undisturbed(cluster, "select")
        yield cluster


SCORE = (
    "score: while reading",
    "score: actor while loading the model",
    "score: data published, not reported",
    "score: node",
    "score: driver before _SUCCESS.json",
)
MORE = ("score: between quarantine and data", "score: between temporary file and data")
SELECT = ("select: counting, before a file", "select: masks, after a file", "select: driver before the histogram")


def _strike(cluster: ChaosCluster, name: Command, kinds: Sequence[str]) -> None:
    """A run under these faults: all of them happen, one resume suffices, and nothing differs."""
    peace, output = cluster.root / f"peace-{name}", cluster.root / f"disturbed-{name}-{len(kinds)}"
    faults = schedule([kind_named(kind) for kind in kinds], seed=11, n_files=n_published(peace))
    outcome = Disturbed(cluster, name, output, faults, workers=1).run()
    compare(outcome, name, output, peace)
    told = f"seed 11, struck: {[*map(str, outcome.struck)]}; {outcome}"
    assert sorted(fault.number for fault in outcome.struck) == list(range(len(kinds))), told
    assert outcome.resumes == 1, told
    assert outcome.differing_files == [], told
    assert outcome.unaccounted == 0, told


def test_scores_are_those_of_an_undisturbed_run(cluster: ChaosCluster) -> None:
    _strike(cluster, "score", SCORE)


@pytest.mark.long
def test_scores_are_those_of_an_undisturbed_run_whatever_the_moment(cluster: ChaosCluster) -> None:
    hog = ["score: out of memory"] if room_for_a_hog() else []
    _strike(cluster, "score", [*SCORE, *MORE, *hog])
    assert cluster.memory_kills() >= len(hog)


def test_masks_are_those_of_an_undisturbed_run(cluster: ChaosCluster) -> None:
    _strike(cluster, "select", SELECT)


def test_a_run_begun_while_a_node_is_away_waits_for_it(cluster: ChaosCluster) -> None:
    peace, output = cluster.root / "peace-score", cluster.root / "away"
    shutil.copytree(peace, output)
    (output / "_SUCCESS.json").unlink()
    min((output / "data").iterdir()).unlink()
    cluster.remove_node(0, graceful=False)
    log = cluster.root / "away.log"
    driver = cluster.run(command("score", cluster.root, output, workers=2), log)
    begun = ("waiting for a worker to start", "loading the model", "checking the model", "waiting for the first unit")
    while not any(phase in tail(log, 100) for phase in begun) and driver.exitcode is None:
        time.sleep(0.1)
    cluster.mend()
    driver.join(LIMIT_S)
    assert driver.exitcode == DONE["score"], tail(log, 30)
    outcome = Outcome()
    compare(outcome, "score", output, peace)
    assert outcome.differing_files == []


def test_the_comparison_sees_a_byte_and_a_document(tmp_path: Path) -> None:
    documents = [document for document, _ in random_documents(N_DOCUMENTS, seed=0)]
    stores = {
        name: write_scores(tmp_path / name, [cut(some, [40, 40])])
        for name, some in (("peace", documents), ("same", documents), ("one-less", documents[:-1]))
    }
    (stores["same"] / "data" / ".unfinished.parquet.0").write_bytes(b"half")
    outcome = Outcome()
    compare(outcome, "score", stores["same"], stores["peace"])
    assert (outcome.differing_bytes, outcome.unaccounted, outcome.strays) == (0, 0, 1)
    compare(outcome, "score", stores["one-less"], stores["peace"])
    assert outcome.unaccounted == 1
    damaged = stores["same"] / "_SUCCESS.json"
    damaged.write_bytes(b"X" + damaged.read_bytes()[1:])
    outcome = Outcome()
    compare(outcome, "score", stores["same"], stores["peace"])
    assert (outcome.differing_bytes, outcome.differing_files) == (1, ["_SUCCESS.json"])
