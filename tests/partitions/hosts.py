"""Hosts as network namespaces with a disk of their own, joined by a switch, and a Ray cluster on them.

A host has an address, a network card (a veth pair whose other end is a port of the switch) and a small disk for Ray's files. What is
published lies on the machine's own disk, which all hosts see: it stands for the storage.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import psutil

from tests.chaos.cluster import GONE, SITE
from tests.chaos.cluster import SETTINGS as CHAOS_SETTINGS
from tests.forkserver.server import START_WORKER, ForkServer

REPOSITORY = Path(__file__).parents[2]
DISK_BYTES = 256 << 20
HEALTH = ("health_check", "gcs_rpc_server_reconnect")  # Ray's own patience is what a user has
SETTINGS = {name: value for name, value in CHAOS_SETTINGS.items() if not any(part in name for part in HEALTH)}


def missing() -> str:
    """What the machine lacks for hosts of its own; "" if nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "iptables", "tc", "faketime"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian's iproute2, iptables and faketime)"
    made = subprocess.run(["ip", "netns", "add", "rho-try"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "delete", "rho-try"], capture_output=True, check=False)
    return "" if made.returncode == 0 else "this machine allows no network namespaces"


def _ip(*words: object) -> None:
    subprocess.run(["ip", *map(str, words)], check=True, capture_output=True)


class Host:
    """One host; `number` is the last part of its address."""

    def __init__(self, network: str, number: int, folder: Path) -> None:
        self.name, self.port, self.address = f"{network}-{number}", f"p{number}", f"10.77.7.{number}"
        self.disk = folder / "disk"  # the same path on every host, another disk
        self._switch, self._clock_s = f"{network}-switch", 0
        _ip("netns", "add", self.name)
        _ip("link", "add", self.port, "netns", self._switch, "type", "veth", "peer", "eth0", "netns", self.name)
        _ip("-n", self._switch, "link", "set", self.port, "master", "switch", "up")
        _ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        for card in ("lo", "eth0"):
            _ip("-n", self.name, "link", "set", card, "up")
        # A process that keeps the host's view of the disks for as long as the host is there.
        mount = f"mount -t tmpfs -o size={DISK_BYTES} disk {self.disk} && echo ready && exec sleep infinity"
        self._init = subprocess.Popen(
            ["ip", "netns", "exec", self.name, "unshare", "--mount", "sh", "-c", mount], stdout=subprocess.PIPE
        )
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == b"ready\n"

    def within(self) -> list[str]:
        """The command that runs another one on this host, at its time of day."""
        at = ["faketime", "-f", f"+{self._clock_s}s"] if self._clock_s else []
        return ["nsenter", f"--target={self._init.pid}", "--net", "--mount", *at]

    def run(self, *command: str) -> None:
        """Runs a command on this host.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        subprocess.run([*self.within(), *command], check=True, capture_output=True)

    def cut(self) -> None:
        """Takes the cable out of the switch."""
        _ip("-n", self._switch, "link", "set", self.port, "down")

    def join(self) -> None:
        """Puts it in again."""
        _ip("-n", self._switch, "link", "set", self.port, "up")

    def lose(self, share: float) -> None:
        """Drops this share of the packets that come in; 0 drops none."""
        self.run("iptables", "--flush", "INPUT")
        if share:
            chance = ["-m", "statistic", "--mode", "random", "--probability", str(share)]
            self.run("iptables", "-A", "INPUT", "-i", "eth0", *chance, "-j", "DROP")

    def slow(self, kilobits: int) -> None:
        """Sends no faster than this many kilobits a second; 0 is as fast as it goes."""
        with suppress(subprocess.CalledProcessError):  # there is no limit yet
            self.run("tc", "qdisc", "del", "dev", "eth0", "root")
        if kilobits:
            limit = ["rate", f"{kilobits}kbit", "burst", "32kbit", "latency", "400ms"]
            self.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *limit)

    def fill(self) -> None:
        """Fills the disk to its last byte."""
        with suppress(subprocess.CalledProcessError):  # so it ends: no space is left
            self.run("dd", "if=/dev/zero", f"of={self.disk}/filled", "bs=1M")

    def empty(self) -> None:
        """Frees what was filled."""
        self.run("rm", "-f", f"{self.disk}/filled")

    def set_clock(self, seconds: int) -> None:
        """The time of day of processes that start from now on is that much later."""
        self._clock_s = seconds

    def remove(self) -> None:
        """Ends the host."""
        self._init.kill()
        self._init.wait()
        _ip("netns", "delete", self.name)


class HostsCluster:
    """A head without CPUs and `n_workers` hosts of two CPUs each; a context manager.

    Everything is published below `root`, which all hosts see.
    """

    def __init__(self, root: Path, *, n_workers: int = 2, pace_s: float = 0.3) -> None:
        """pace_s: how much longer than it must each unit takes, twice."""
        (root / "armed").mkdir(exist_ok=True)
        self._n, self._network = n_workers, f"rho{os.getpid() % 10000}"
        self._environment = {
            **SETTINGS,
            "CHAOS_ROOT": str(root),
            "CHAOS_PACE_S": str(pace_s),
            "RAY_AUTH_MODE": "disabled",
        }

    def __enter__(self) -> "HostsCluster":
        self._folder = Path(tempfile.mkdtemp(prefix="rho"))  # short: Ray makes sockets below it
        (self._folder / "disk").mkdir()
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        switch = f"{self._network}-switch"
        _ip("netns", "add", switch)
        self._stack.callback(_ip, "netns", "delete", switch)
        _ip("-n", switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", switch, "link", "set", "switch", "up")
        self.hosts = []
        for number in range(1, self._n + 2):
            host = Host(self._network, number, self._folder)
            self._stack.callback(host.remove)
            self.hosts.append(host)
        self.head, self.workers = self.hosts[0], self.hosts[1:]
        self._rays: dict[str, subprocess.Popen[bytes]] = {}
        self._servers: dict[str, ForkServer] = {}
        self._stack.callback(self._stop)
        self._start(self.head)
        for host in self.workers:
            self._start(host)
        self.wait("all hosts", lambda: self.n_alive() == self._n + 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def address(self) -> str:
        """For RAY_ADDRESS, on any host."""
        return f"{self.head.address}:6379"

    def _start(self, host: Host) -> None:
        """Starts Ray on a host."""
        server = self._servers[host.name] = ForkServer(host.within())
        server.__enter__()
        where = ["--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={host.disk}/ray"]
        if host is not self.head:
            where = [f"--address={self.address}", "--num-cpus=2", f"--temp-dir={host.disk}/ray"]
        common = [
            "--block",
            f"--node-ip-address={host.address}",
            "--object-store-memory=80000000",
            "--disable-usage-stats",
        ]
        log = (self._folder / f"{host.name}.log").open("ab")
        self._rays[host.name] = subprocess.Popen(
            [*host.within(), sys.executable, str(Path(__file__).with_name("start_node.py")), "start", *where, *common],
            env=self.environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        """The environment of processes on the hosts."""
        path = os.pathsep.join(filter(None, [str(SITE), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
        return {**os.environ, **self._environment, "PYTHONPATH": path, "START_WORKER": START_WORKER}

    def _stop_host(self, host: Host) -> None:
        """Ends Ray on a host with all its processes."""
        ray = self._rays.pop(host.name)
        with suppress(*GONE):
            for process in [*psutil.Process(ray.pid).children(recursive=True), psutil.Process(ray.pid)]:
                with suppress(*GONE):
                    process.kill()
        ray.wait()
        self._servers.pop(host.name).__exit__()

    def _stop(self) -> None:
        for host in self.hosts:
            if host.name in self._rays:
                self._stop_host(host)

    def mend(self) -> list[str]:
        """Starts Ray again on worker hosts where it has ended, as a supervisor does; returns their names."""
        ended = [host for host in self.workers if self._rays[host.name].poll() is not None]
        for host in ended:
            self._stop_host(host)
            self._start(host)
        return [host.name for host in ended]

    def restart(self, host: Host) -> None:
        """Ends and starts Ray on a worker host."""
        self._stop_host(host)
        self._start(host)

    def n_alive(self) -> int:
        """How many nodes the head takes for alive; 0 if it does not answer."""
        code = (
            "import ray, sys\nfrom ray._private.state import GlobalState\nfrom ray._raylet import GcsClientOptions\n"
            "state = GlobalState()\n"
            f"state._initialize_global_state(GcsClientOptions.create({self.address!r}, None, True, True))\n"
            "print(sum(node['Alive'] for node in state.node_table()))"
        )
        asked = subprocess.run(
            [*self.head.within(), sys.executable, "-c", code], env=self.environment(), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        return int(asked.stdout) if asked.returncode == 0 else 0

    def begin(self, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Starts `rho-score ARGUMENTS` on the head, joined to the cluster."""
        command = [*self.head.within(), sys.executable, "-m", "rho_score", *arguments]
        with log.open("wb") as out:
            return subprocess.Popen(
                command, env=self.environment() | {"RAY_ADDRESS": self.address}, stdout=out, stderr=subprocess.STDOUT
            )

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Waits for a condition.

        Raises:
            AssertionError: it did not come true; with the hosts' logs.
        """
        end = time.monotonic() + seconds
        while not condition():
            logs = "\n".join(
                f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in self._folder.glob("*.log")
            )
            assert time.monotonic() < end, f"{what}: not within {seconds:g} s\n{logs}"
            time.sleep(0.2)
