"""Unit tests run without a cluster, although one of the tests' may be connected in this process."""

import pytest

from rho_score.cluster import ray_cluster, tasks
from rho_score.selecting import batches, global_cut


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs tasks as threads of this process, as without a cluster."""
    if "ray_cluster" in request.fixturenames:
        return
    for module in (ray_cluster, tasks, batches, global_cut):
        monkeypatch.setattr(module, "connected", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
