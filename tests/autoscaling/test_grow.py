"""A cluster that grows from nothing, loses a node, and shrinks to nothing again: the same bytes, and every document counted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.autoscaling.cluster import GrowingCluster
from tests.autoscaling.runs import published, score_command
from tests.chaos.runs import N_DOCUMENTS, N_QUARANTINED, command, prepare


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("grow")
    prepare(root)
    return root


@pytest.fixture(scope="module")
def cluster(root: Path) -> Iterator[GrowingCluster]:
    with GrowingCluster(root, most=3, pace_s=0.15) as cluster:
        yield cluster
        print(cluster.table())


def test_a_node_that_is_killed_costs_no_byte_and_none_stays_idle(cluster: GrowingCluster, root: Path) -> None:
    assert not cluster.nodes()
    code, said = cluster.ended(cluster.submit(score_command(root, "peace-score", "1:3")))
    assert code == 3, said
    job = cluster.submit(score_command(root, "killed", "1:3"))
    data = root / "killed" / "data"
    cluster.wait("some units", lambda: data.is_dir() and len(list(data.iterdir())) > 5)
    cluster.kill(cluster.nodes()[-1])
    code, said = cluster.ended(job)
    assert code == 3, said
    assert f"documents in {N_DOCUMENTS} = scored {N_DOCUMENTS - N_QUARANTINED} + quarantined {N_QUARANTINED}" in said
    assert published(root / "killed") == published(root / "peace-score")
    cluster.wait("the end of idle nodes", lambda: not cluster.nodes(), 60)


def test_what_no_node_can_hold_is_refused_before_any_work(cluster: GrowingCluster, root: Path) -> None:
    code, said = cluster.ended(cluster.submit(score_command(root, "never", "1", "--cpus-per-worker", "8")))
    assert code == 2, said
    assert (
        "1 workers of 8 CPUs and one CPU for reading need 9, but the cluster has 0, and its autoscaler can start no nodes"
        in said
    )
    assert not (root / "never").exists()


@pytest.mark.long
def test_select_and_export_bring_the_nodes_that_they_need(cluster: GrowingCluster, root: Path) -> None:
    cluster.wait("the end of idle nodes", lambda: not cluster.nodes(), 60)
    for name in ("peace-select", "again-select"):
        code, said = cluster.ended(cluster.submit(command("select", root, root / name)))
        assert code == 0, said
    code, said = cluster.ended(cluster.submit(command("export", root, root / "export")))
    assert code == 0, said
    assert published(root / "again-select") == published(root / "peace-select")
