"""Ray's autoscaler with its provider of fake nodes: every node is a raylet of its own on this machine.

The provider starts a raylet for a node, and ends it when the node was idle for long enough, as a cloud's starts and ends
machines. Everything else is what runs on a cloud: the head, the autoscaler's second version, the job server.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.chaos.cluster import GONE, SETTINGS, SITE, free_port
from tests.forkserver.server import ForkServer

HEAD_ID = "f" * 51 + "00000"  # the provider's own name for the head
HEAD_TYPE = "ray.head.default"  # this too
IDLE_MINUTES = 0.1
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Event:
    """Something that happened to the cluster's nodes."""

    at_s: float
    """Seconds since the cluster was ready."""
    what: str
    n_nodes: int
    """Worker nodes that are alive after it."""


class GrowingCluster:
    """A head without CPUs, and from none to `most` worker nodes of `cpus` CPUs; a context manager."""

    def __init__(
        self, root: Path, *, most: int = 4, cpus: int = 2, idle_minutes: float = IDLE_MINUTES, pace_s: float = 0.0
    ) -> None:
        """root: a folder for inputs and outputs. pace_s: how long each unit takes longer than it must, twice."""
        (root / "armed").mkdir()
        self._chaos = {"CHAOS_ROOT": str(root), "CHAOS_PACE_S": str(pace_s)}
        self._most, self._cpus, self._idle_minutes = most, cpus, idle_minutes
        self.events: list[Event] = []
        self._seen: dict[int, psutil.Process] = {}
        self._stop = threading.Event()

    def __enter__(self) -> "GrowingCluster":
        self._folder = tempfile.mkdtemp(prefix="rho")  # short: Ray makes sockets below it
        self._ports = {name: free_port() for name in ("gcs", "dashboard", "client")}
        config = Path(self._folder) / "autoscaler.yaml"
        config.write_text(json.dumps(self._config()))
        self._log = (Path(self._folder) / "head.log").open("wb")
        self._fork_server = ForkServer().__enter__()
        self._head = subprocess.Popen(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={self._ports['gcs']}",
                f"--dashboard-port={self._ports['dashboard']}", "--dashboard-agent-listen-port=0", "--num-cpus=0",
                f"--ray-client-server-port={self._ports['client']}", f"--temp-dir={self._folder}/ray",
                "--object-store-memory=100000000", f"--autoscaling-config={config}", "--disable-usage-stats",
            ],
            env=self._environment(), stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            self._wait_for_the_job_server()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._started = time.monotonic()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for process in [*self._below(), psutil.Process(self._head.pid)]:
            with suppress(*GONE):
                process.kill()
        self._head.wait()
        self._fork_server.__exit__(None, None, None)
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """For RAY_ADDRESS of a driver."""
        return f"127.0.0.1:{self._ports['gcs']}"

    @property
    def job_server(self) -> str:
        """For a client that submits jobs."""
        return f"http://127.0.0.1:{self._ports['dashboard']}"

    def _config(self) -> dict[str, Any]:
        worker = {
            "resources": {"CPU": self._cpus, "object_store_memory": 100 << 20},
            "node_config": {},
            "min_workers": 0,
        }
        return {
            "cluster_name": "growing",
            "max_workers": self._most,
            "idle_timeout_minutes": self._idle_minutes,
            "upscaling_speed": 4.0,
            "provider": {
                "type": "external", "module": "tests.autoscaling.provider.ForkingNodes", "head_node_id": HEAD_ID,
                "launch_multiple": True, "gcs_address": self.address, "disable_node_updaters": True,
            },
            "available_node_types": {
                HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "worker": worker | {"max_workers": self._most},
            },
            "head_node_type": HEAD_TYPE,
            "auth": {}, "docker": {}, "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
            "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [], "file_mounts": {},
            "cluster_synced_files": [], "file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": [],
        }  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ, **SETTINGS, **self._chaos,
            "RAY_AUTH_MODE": "disabled",  # a user's token would be asked for, which the tests' process has not read
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            "RAY_TMPDIR": self._folder,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(SITE), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])),
        }  # fmt: skip

    def _wait_for_the_job_server(self) -> None:
        end = time.monotonic() + 90
        while time.monotonic() < end and self._head.poll() is None:
            with suppress(ConnectionError, RuntimeError):
                self._client().list_jobs()
                return
            time.sleep(0.5)
        raise RuntimeError(f"the head did not start:\n{self.log()}")

    def submit(self, arguments: Sequence[str]) -> str:
        """Submits `rho-score ARGUMENTS` as a job; returns its id."""
        self.note(f"`{arguments[0]}` is submitted")
        command = shlex.join([sys.executable, str(REPOSITORY / "ray_jobs" / f"{arguments[0]}.py"), *arguments[1:]])
        return str(self._client().submit_job(entrypoint=command))

    def ended(self, job: str, *, within_s: float = 300) -> tuple[int | None, str]:
        """Waits for the end of a job; returns its exit code and what it printed."""
        client = self._client()
        self.wait("the end of the job", lambda: self.is_over(job), within_s)
        self.note("the job ends")
        return client.get_job_info(job).driver_exit_code, client.get_job_logs(job)

    def is_over(self, job: str) -> bool:
        """True if a job has ended, in whatever way."""
        from ray.job_submission import JobStatus

        return self._client().get_job_status(job) in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)

    def _client(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(self.job_server)

    def log(self) -> str:
        """What the head printed, and the autoscaler's log."""
        found = [
            Path(self._log.name),
            *Path(self._folder).glob("ray/session_2*/logs/monitor.*"),
            *Path(self._folder).glob("ray/session_2*/logs/dashboard.*"),
        ]
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-6000:]}" for path in found)

    def _below(self) -> list[psutil.Process]:
        """Every process of the cluster but the head's own command."""
        with suppress(*GONE):
            return psutil.Process(self._head.pid).children(recursive=True)
        return []

    def nodes(self) -> list[psutil.Process]:
        """The raylets of worker nodes, the oldest first."""
        found = []
        for process in self._below():
            with suppress(*GONE):
                words = process.cmdline()
                if process.name() == "raylet" and not any(word == "--head" for word in words):
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def kill(self, node: psutil.Process) -> None:
        """Ends a node with its workers at once, as a cloud does that takes a spot node back."""
        below = node.children(recursive=True) + self._fork_server.workers_of(node.pid)
        for process in [node, *below]:
            with suppress(*GONE):
                process.kill()
        self.note(f"node {node.pid} is killed")

    def note(self, what: str) -> None:
        """Adds an event."""
        self.events.append(Event(time.monotonic() - self._started, what, len(self._seen)))

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            alive = {process.pid: process for process in self.nodes()}
            for pid in alive.keys() - self._seen.keys():
                self._seen[pid] = alive[pid]
                self.note("a node joins")
            for pid in self._seen.keys() - alive.keys():
                del self._seen[pid]
                self.note("a node is gone")

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Waits for a condition.

        Raises:
            AssertionError: it did not come true; with the events and the autoscaler's log.
        """
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what}: not within {seconds:g} s\n{self.table()}\n{self.log()}"
            time.sleep(0.1)

    def table(self) -> str:
        """The events, as a table in Markdown."""
        rows = [f"| {event.at_s:.1f} | {event.what} | {event.n_nodes} |" for event in self.events]
        return "\n".join(["| s | event | worker nodes |", "|---|---|---|", *rows])
