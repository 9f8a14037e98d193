"""Workers that can never start are refused, for which Ray Train would wait without an end."""

from types import SimpleNamespace
from typing import Any

import pytest

from rho_score.errors import InputError
from rho_score.training import on_cluster


def _settings(workers: int, *, use_gpu: bool = False) -> Any:
    return SimpleNamespace(config=SimpleNamespace(workers=workers, cpus_per_worker=2), use_gpu=use_gpu)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A cluster of one node of 8 CPUs without an autoscaler, that joined long ago."""
    monkeypatch.setattr(on_cluster, "connected", lambda: True)
    monkeypatch.setattr(on_cluster, "room_for", lambda bundles: "silent")
    monkeypatch.setattr(on_cluster, "youngest_node", lambda: 0.0)
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 8.0}}])
    return monkeypatch


def test_gpus_that_this_machine_lacks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_cluster, "connected", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(InputError, match="2 workers of one GPU each need 2, but this machine has 1"):
        on_cluster.check_workers(_settings(2, use_gpu=True))
    on_cluster.check_workers(_settings(1, use_gpu=True))
    on_cluster.check_workers(_settings(9))


def test_a_cluster_that_cannot_grow_and_is_too_small_is_refused(joined: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match="5 workers with 2 CPUs each never fit this cluster, whose nodes hold 4 of them"
    ):
        on_cluster.check_workers(_settings(5))
    with pytest.raises(InputError, match="1 workers with 2 CPUs and 1 GPU each never fit this cluster"):
        on_cluster.check_workers(_settings(1, use_gpu=True))
    joined.setattr(on_cluster, "room_for", lambda bundles: "never")
    with pytest.raises(InputError, match="can never start on this cluster"):
        on_cluster.check_workers(_settings(1))


def test_a_cluster_that_is_busy_or_has_lost_nodes_is_waited_for(
    joined: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_cluster.check_workers(_settings(4))
    assert "4 workers with 2 CPUs each have no room yet" in caplog.text
    joined.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 8.0}}, {"Alive": False, "Resources": {}}])
    on_cluster.check_workers(_settings(5))
