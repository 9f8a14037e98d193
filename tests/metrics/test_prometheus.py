"""A scoring run on a cluster of its own, scraped by a real Prometheus: its totals are the run's accounts."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import N_DOCUMENTS, N_QUARANTINED
from tests.metrics.dashboard import expressions

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0
OTHER = ("kept_ratio", "train_", "_retries_total")
"""Metrics that an undisturbed scoring run does not have."""
NEEDED = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (make system)")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def process(*command: str, log: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block, by its own id."""
    with log.open("w") as errors:
        started = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=env
        )
        try:
            yield started
        finally:
            assert started.stdin
            started.stdin.close()
            if command[0] == "prometheus":
                started.send_signal(signal.SIGTERM)
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def until(look: Callable[[], Any], why: Callable[[], str]) -> Any:
    """What `look` returns once it is true."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.1)
    raise AssertionError(why())


class Server:
    """A Prometheus that is asked."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/query"

    def ask(self, expression: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(
            f"{self._url}?{urllib.parse.urlencode({'query': expression})}", timeout=10
        ) as answer:
            content = json.load(answer)
        assert content["status"] == "success", content
        found: list[dict[str, Any]] = content["data"]["result"]
        return found

    def total(self, name: str, by: str = "") -> float:
        """The sum over what Ray labels a metric with besides; 0 without any."""
        found = self.ask(f"sum(last_over_time(ray_rho_score_{name}{by}[10m]))")
        return float(found[0]["value"][1]) if found else 0.0


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="rho-") as folder:  # short: Ray's sockets lie in it
        without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        yield {**without, "RAY_metrics_report_interval_ms": "1000", "RAY_AUTH_MODE": "disabled", "TMPDIR": folder,
               "PYTHONPATH": str(ROOT)}  # fmt: skip


@NEEDED
def test_prometheus_has_the_accounts_of_a_run(
    corpus: Path, make_model: Callable[[int], Path], tmp_path: Path, environment: dict[str, str]
) -> None:
    ray_folder, port = f"{environment['TMPDIR']}/ray", free_port()
    discovery = f"{ray_folder}/prom_metrics_service_discovery.json"
    config = (
        (ROOT / "deploy/prometheus.yml").read_text().replace("/tmp/ray/prom_metrics_service_discovery.json", discovery)
    )
    (tmp_path / "prometheus.yml").write_text(config.replace("10s", "1s"))
    with ExitStack() as ends:
        head = ends.enter_context(
            process(sys.executable, "-m", "tests.metrics.head", ray_folder, log=tmp_path / "head.log", env=environment)
        )
        ends.enter_context(
            process(
                "prometheus",
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
                log=tmp_path / "prometheus.log",
                env=environment,
            )
        )
        assert head.stdout
        address = next((line.split()[1] for line in head.stdout if line.startswith("address")), "")
        assert address, (tmp_path / "head.log").read_text()
        server = Server(port)
        until(
            lambda: server.ask("ray_node_cpu_count or ray_resources"), lambda: (tmp_path / "prometheus.log").read_text()
        )
        command = [
            sys.executable, "-m", "rho_score", "score", str(corpus), f"{tmp_path}/scored", "--model", str(make_model(1)),
            "--cpus-per-worker", "1", "--gpus-per-worker", "0", "--context", "32", "--overlap", "8", "--unit-bytes", "6000",
            "--no-compile", "--allow-quarantine", "--id-column", "id",
        ]  # fmt: skip
        ran = subprocess.run(command, env={**environment, "RAY_ADDRESS": address}, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        accounts = json.loads((tmp_path / "scored/_SUCCESS.json").read_bytes())
        expected = {
            "documents_total": N_DOCUMENTS,
            "quarantined_documents_total": N_QUARANTINED,
            "units_total": accounts["units"],
            "tokens_total": accounts["tokens"],
            **{
                f'stage_seconds_count{{stage="{s}"}}': accounts["units"]
                for s in ("read", "tokenize", "score", "publish")
            },
        }
        found: dict[str, float] = {}

        def all_there() -> bool:
            found.update({name: server.total(name) for name in expected})
            return all(found[name] >= value for name, value in expected.items())

        until(all_there, lambda: f"{found} in place of {expected}")
        assert found == expected
        runs = {one["metric"]["run"] for one in server.ask("last_over_time(ray_rho_score_units_total[10m])")}
        manifest = json.loads((tmp_path / "scored/manifest.json").read_bytes())
        assert runs == {f"scored-{manifest['fingerprint'][:8]}"}
        for expression in expressions():
            there = server.ask(
                re.sub(r"(ray_\w+\{[^}]*\})", r"last_over_time(\1[10m])", expression.replace("$run", ".*"))
            )
            assert bool(there) != any(name in expression for name in OTHER), expression
