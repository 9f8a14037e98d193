"""`ray start` with workers that are forked from a process that has imported torch already."""

import os
from functools import partial

import ray._private.parameter as parameters

parameters.RayParams = partial(parameters.RayParams, setup_worker_path=os.environ["START_WORKER"])

from ray.scripts.scripts import main  # noqa: E402, it takes the class when it is imported

main()
