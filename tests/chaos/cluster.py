"""A Ray cluster of several nodes on this machine, whose processes die; and commands as processes that join it."""

import contextlib
import multiprocessing
import os
import shutil
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.forkserver.server import START_WORKER, ForkServer

SITE = Path(__file__).parent / "site"
REPOSITORY = Path(__file__).parents[2]
HEADROOM = 3 << 30
GONE = (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied)

SETTINGS = {
    "RAY_health_check_initial_delay_ms": "1000",  # a node that dies is noticed in seconds
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",  # so is a head
    "RAY_worker_niceness": "0",  # else a busy machine starves the workers, and only them
    "RAY_memory_monitor_refresh_ms": "0",  # what else runs on the machine must not decide; see add_small_node
    "RAY_num_workers_soft_limit": "4",  # workers take seconds to start
    "RAY_enable_worker_prestart": "0",  # two real cores carry all nodes
    "RAY_prestart_worker_first_driver": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
}


class ChaosCluster:
    """A head without CPUs and some worker nodes; use as a context manager, on the main thread, one in a process.

    Everything happens below `root`: corpus, model, outputs, and `armed`, the faults that wait for their moment.
    """

    def __init__(
        self,
        root: Path,
        *,
        n_nodes: int = 2,
        cpus: int = 2,
        pace_s: float = 0.1,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.root, self._n_nodes, self._cpus = root, n_nodes, cpus
        (root / "armed").mkdir()
        self._temporary = tempfile.mkdtemp(prefix="rho")  # short: Ray makes sockets below it
        path = os.pathsep.join([str(SITE), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self._environment = {
            **SETTINGS,
            "RAY_TMPDIR": self._temporary,
            "PYTHONPATH": path,
            "CHAOS_ROOT": str(root),
            "CHAOS_PACE_S": str(pace_s),
        }
        self._before: dict[str, str | None] = {}
        self._small: list[Any] = []
        self._spawn = multiprocessing.get_context("forkserver")

    def __enter__(self) -> "ChaosCluster":
        self._fork_server = ForkServer().__enter__()
        self._before = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)
        self._spawn.set_forkserver_preload(["tests.chaos.driver"])
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        self._fork_server.__exit__(None, None, None)
        shutil.rmtree(self._temporary, ignore_errors=True)

    def start(self) -> None:
        """Start the head and the worker nodes."""
        from ray.cluster_utils import Cluster

        head = {
            "num_cpus": 0,
            "include_dashboard": False,
            "dashboard_port": free_port(),
            "dashboard_agent_listen_port": 0,
        }
        self._cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=True)
        for _ in range(self._n_nodes):
            self.add_node(wait=False)
        self._cluster.wait_for_nodes(60)

    def stop(self) -> None:
        """End every node, the head last."""
        self._small = []
        for node in list(self._cluster.worker_nodes):
            self._cluster.remove_node(node, allow_graceful=False)
        if self._cluster.head_node is not None:
            self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)

    @property
    def address(self) -> str:
        """For RAY_ADDRESS."""
        return str(self._cluster.address)

    def add_node(self, *, wait: bool = True) -> Any:
        """One more worker node."""
        return self._cluster.add_node(
            wait=wait, num_cpus=self._cpus, object_store_memory=100 << 20, setup_worker_path=START_WORKER
        )

    def add_small_node(self) -> None:
        """A worker node whose memory monitor ends workers once the machine uses `HEADROOM` bytes more than now."""
        from ray._common.utils import get_system_memory
        from ray._private.utils import get_used_memory

        settings = {
            "RAY_memory_usage_threshold": f"{min((get_used_memory() + HEADROOM) / get_system_memory(), 1.0):.4f}",
            "RAY_memory_monitor_refresh_ms": "100",
            "CHAOS_HOG_BYTES": str(HEADROOM * 4 // 3),
        }
        os.environ.update(settings)
        self._small.append(self.add_node())
        for name in settings:
            del os.environ[name]
        os.environ.update(SETTINGS)

    def remove_node(self, index: int, *, graceful: bool) -> None:
        """A worker node that is not small goes: its raylet is killed with all below it, or asked to end."""
        nodes = sorted(set(self._cluster.worker_nodes) - set(self._small), key=lambda node: node.node_id)
        node = nodes[index % len(nodes)]
        below = self._below(node)
        self._cluster.remove_node(node, allow_graceful=graceful)
        if not graceful:  # a machine that vanishes takes its workers with it
            for process in below:
                with contextlib.suppress(*GONE):
                    process.kill()

    def restart(self) -> None:
        """The head dies, and with it the cluster; another one comes."""
        small = bool(self._small)
        self.stop()
        self.start()
        if small:
            self.add_small_node()

    def memory_kills(self) -> int:
        """How many times Ray's memory monitor ended workers, by the raylets' events."""
        logs = Path(self._temporary).glob("ray/session_2*/logs/events/event_RAYLET.log")
        return sum(log.read_text(errors="replace").count('"label":"Out of Memory"') for log in logs)

    def mend(self) -> None:
        """Replace worker nodes whose raylet died."""
        for node in [node for node in self._cluster.worker_nodes if not alive(raylet_pid(node))]:
            self._cluster.remove_node(node, allow_graceful=False)
        while len(self._cluster.worker_nodes) < self._n_nodes:
            self.add_node()

    def trim(self) -> None:
        """As many worker nodes as in the beginning, and none that is small."""
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: node not in self._small)
        n_small = sum(node in self._small for node in nodes)
        for node in nodes[: max(n_small, len(nodes) - self._n_nodes)]:
            self._cluster.remove_node(node, allow_graceful=False)
        self._small = []
        self.mend()

    def workers(self, title: str = "") -> list[psutil.Process]:
        """Worker processes of all nodes whose title holds `title`, e.g. "ScoreUnit"; by pid."""
        found = []
        for node in self._cluster.worker_nodes:
            for process in self._below(node):
                with contextlib.suppress(*GONE):
                    name = " ".join(process.cmdline())
                    if name.startswith("ray::") and title in name:
                        found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def _below(self, node: Any) -> list[psutil.Process]:
        with contextlib.suppress(*GONE):
            below = psutil.Process(raylet_pid(node)).children(recursive=True)
            return below + self._fork_server.workers_of(raylet_pid(node))
        return []

    def run(self, arguments: list[str], log: Path) -> Any:
        """`rho-score ARGUMENTS` as a process joined to the cluster by RAY_ADDRESS; what it prints goes to `log`.

        The process is forked from one that has imported the program already, which saves ten seconds each time; its
        `exitcode` is -9 where it was killed.
        """
        from tests.chaos.driver import drive

        process = self._spawn.Process(target=drive, args=(arguments, self.address, str(log)))
        process.start()
        return process


def room_for_a_hog() -> bool:
    """Whether the machine has memory for a process that takes more than the memory monitor allows."""
    return bool(psutil.virtual_memory().available > 2 * HEADROOM)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def raylet_pid(node: Any) -> int:
    """Process id of a node's raylet."""
    return int(node.all_processes["raylet"][0].process.pid)


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
