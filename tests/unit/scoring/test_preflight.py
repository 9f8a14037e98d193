"""Workers, their CPUs and the nodes that are to hold them."""

import logging
import time

import pytest

from rho_score.errors import InputError
from rho_score.scoring import preflight


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus"),
    [
        ([2], 1, 1),
        ([16], 1, 15),
        ([0, 16, 16], 1, 16),
        ([16, 16, 16, 16], 4, 15),
        ([16, 16, 16, 16], 8, 7),
        ([3, 3], 2, 2),
        ([4, 4, 4], 2, 4),
        ([1], 1, 1),
        ([4], 8, 1),
    ],
)
def test_workers_have_what_the_nodes_can_give_and_leave_one_cpu(nodes: list[float], workers: int, cpus: int) -> None:
    assert preflight.largest_share(nodes, workers) == cpus


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A cluster of one node of two CPUs that joined long ago."""
    pytest.importorskip("ray")
    monkeypatch.setattr(preflight, "starts_its_own", lambda: False)
    monkeypatch.setattr(preflight, "connected", lambda: True)
    monkeypatch.setattr(preflight, "_alive_cpus", lambda: [2.0])
    monkeypatch.setattr(preflight, "wait_for_a_cpu", lambda: None)
    monkeypatch.setattr(preflight, "room_for", lambda bundles: "silent")
    monkeypatch.setattr(preflight, "youngest_node", lambda: 0.0)
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})
    return monkeypatch


def test_the_default_fits_a_cluster_of_two_cpus(two_cpus: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    two_cpus.setattr("os.cpu_count", lambda: 2)
    with caplog.at_level(logging.INFO):
        assert preflight.default_cpus(1, gpus=0) == 1
        preflight.check_pool(workers=1, cpus=1, gpus=0)
    assert [record.getMessage() for record in caplog.records] == [
        "each worker has 1 of this machine's 2 cores, because the cluster has 2 CPUs and one is left for reading"
    ]


def test_what_can_never_fit_is_refused_at_once(two_cpus: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match="1 workers of 2 CPUs and one CPU for reading need 3, but the cluster has 2"):
        preflight.check_pool(workers=1, cpus=2, gpus=0)
    assert time.monotonic() - started < 5


def test_waiting_for_nodes_is_told_at_once(two_cpus: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    nodes = iter([[2.0], [2.0, 2.0]])
    now = time.time()
    two_cpus.setattr(preflight, "youngest_node", lambda: now)
    two_cpus.setattr(preflight, "_alive_cpus", lambda: next(nodes))
    with caplog.at_level(logging.INFO):
        preflight.check_pool(workers=1, cpus=2, gpus=0)
    (told,) = (record.getMessage() for record in caplog.records)
    assert "need 3, but the cluster has 2. Waiting" in told
    assert "for other nodes to join" in told


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("coming", "need 9, but the cluster has 2. Its autoscaler is adding nodes."),
        ("busy", "Waiting for nodes to join or to be free"),
    ],
)
def test_a_cluster_that_may_grow_is_waited_for(
    two_cpus: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: str, told: str
) -> None:
    asked = []
    two_cpus.setattr(preflight, "room_for", lambda bundles: asked.append(bundles) or answer)
    with caplog.at_level(logging.INFO):
        preflight.check_pool(workers=4, cpus=2, gpus=0)
    assert told in caplog.text
    assert asked == [[{"CPU": 2}] * 4 + [{"CPU": 1}]]


def test_what_no_autoscaler_can_ever_bring_is_refused(two_cpus: pytest.MonkeyPatch) -> None:
    two_cpus.setattr(preflight, "room_for", lambda bundles: "never")
    with pytest.raises(
        InputError, match=r"need 4, but the cluster has 2, and its autoscaler can start no nodes that would be"
    ):
        preflight.check_pool(workers=1, cpus=3, gpus=0)
    with pytest.raises(
        InputError, match=r"2 workers of 1 GPUs and 2 CPUs need 2 GPUs, but the cluster has 0, and its autoscaler"
    ):
        preflight.check_pool(workers=2, cpus=2, gpus=1)


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus", "gpus", "told"),
    [
        (
            [(8, 1), (8, 1)],
            1,
            2,
            2.0,
            "1 workers of 2 GPUs and 2 CPUs are asked for, but the nodes of the cluster hold 0 such",
        ),
        ([(8, 1)], 4, 2, 0.25, r"4 workers .*, and one CPU for reading, need 9 CPUs, but the cluster has 8"),
        ([(2, 1)], 1, 2, 1.0, "need 3 CPUs, but the cluster has 2"),
        ([(8, 1), (8, 1)], 2, 64, 1.0, "need 129 CPUs, but the cluster has 16"),
        ([(8, 1)], 3, 2, 1.0, "need 3 GPUs, but the cluster has 1"),
        ([(8, 1), (1, 0)], 4, 2, 0.25, None),
        ([(0, 0), (8, 4)], 2, 2, 2.0, None),
        ([(30, 1)], 10, 2, 0.1, None),
    ],
)
def test_workers_with_gpus_fit_the_nodes_and_leave_one_cpu(
    two_cpus: pytest.MonkeyPatch, nodes: list[tuple[int, int]], workers: int, cpus: int, gpus: float, told: str | None
) -> None:
    there = [{"Alive": True, "Resources": {"CPU": c, "GPU": g}} for c, g in nodes]
    two_cpus.setattr("ray.nodes", lambda: there)
    total = {"CPU": sum(c for c, _ in nodes), "GPU": sum(g for _, g in nodes)}
    two_cpus.setattr("ray.cluster_resources", lambda: total)
    if told is None:
        preflight.check_pool(workers=workers, cpus=cpus, gpus=gpus)
        return
    with pytest.raises(InputError, match=told):
        preflight.check_pool(workers=workers, cpus=cpus, gpus=gpus)


def test_nodes_that_were_lost_are_waited_for(two_cpus: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    two_cpus.setattr(
        "ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {}}]
    )
    preflight.check_pool(workers=1, cpus=2, gpus=0)
    assert "Waiting for nodes to join" in caplog.text


def test_workers_that_fit_the_cluster_and_none_of_its_nodes_are_told(two_cpus: pytest.MonkeyPatch) -> None:
    two_cpus.setattr(preflight, "_alive_cpus", lambda: [2.0, 2.0, 2.0])
    with pytest.raises(InputError, match=r"cluster has 6, and the CPUs of its nodes \(3 × 2\) hold 0 such workers"):
        preflight.check_pool(workers=1, cpus=3, gpus=0)


def test_a_cluster_of_one_cpu_is_refused_with_a_remedy_that_helps(two_cpus: pytest.MonkeyPatch) -> None:
    two_cpus.setattr(preflight, "_alive_cpus", lambda: [1.0])
    with pytest.raises(InputError, match="--num-cpus 2"):
        preflight.check_pool(workers=1, cpus=preflight.default_cpus(1, gpus=0), gpus=0)
