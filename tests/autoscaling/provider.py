"""Ray's provider of fake nodes, whose workers are forked from a process that has imported torch already."""

from functools import partial
from typing import Any
from unittest import mock

import ray._private.parameter as parameters
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

from tests.forkserver.server import START_WORKER


class ForkingNodes(FakeMultiNodeProvider):  # type: ignore[misc]
    """The provider that the autoscaler's configuration names."""

    def _create_node_with_resources_and_labels(self, *arguments: Any) -> None:
        forking = partial(parameters.RayParams, setup_worker_path=START_WORKER)
        with mock.patch.object(parameters, "RayParams", forking):
            super()._create_node_with_resources_and_labels(*arguments)
