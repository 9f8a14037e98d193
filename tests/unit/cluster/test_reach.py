"""Whether Ray can be had is known before an output is begun."""

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rho_score.cli import main
from rho_score.cluster.reach import check_address
from rho_score.errors import InputError, RhoScoreError

COMMANDS = {
    "score": ["score", "{corpus}", "out", "--model", "{model}"],
    "import": ["import", "/no/values", "out", "--like", "/no/scores", "--unit", "other"],
    "prior": ["prior", "/no/scores", "out"],
    "kl": ["kl", "/no/a", "/no/b", "out"],
    "select": ["select", "--ref", "/no/scores", "out", "--ratio", "0.5"],
    "dynamics": ["dynamics", "out", "--scores", "/no/a", "/no/b"],
    "export": ["export", "/no/selection", "out", "--format", "bin"],
}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working directory of a process that no cluster is connected to."""
    monkeypatch.setattr("rho_score.cluster.ray_cluster.connected", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def web_server() -> Iterator[int]:
    """The port of a server that is no cluster's head, as the dashboard is."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_address_of_a_job_server_is_refused_and_nothing_is_written(
    command: str, alone: Path, corpus: Path, make_model: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    arguments = [word.format(corpus=corpus, model=make_model(1)) for word in COMMANDS[command]]
    capsys.readouterr()  # of making the model
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "ray job submit --address http://127.0.0.1:8265" in said
    assert "HOST:PORT" in said
    assert list(alone.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://head:10001", "Ray Client"),
        ("https://head", "ray job submit"),
        ("localhost", "is not the address of a Ray cluster"),
        ("nonsense", "is not the address of a Ray cluster"),
        ("head:", "is not the address of a Ray cluster"),
        ("head:port", "is not the address of a Ray cluster"),
        ("head:99999", "is not the address of a Ray cluster"),
        ("ftp://head:6379", "is not the address of a Ray cluster"),
    ],
)
def test_what_is_no_address_of_a_cluster_is_refused_with_the_remedy(address: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        check_address(address)
    assert "unset it" in str(refused.value)


def test_a_port_where_nobody_listens_is_told_at_once() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(RhoScoreError, match="no cluster answers at"):
            check_address(f"127.0.0.1:{held.getsockname()[1]}")


def test_a_server_that_is_no_head_is_refused(web_server: int) -> None:
    with pytest.raises(InputError, match="is not the head of a Ray cluster"):
        check_address(f"127.0.0.1:{web_server}")


def test_auto_without_a_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", nothing)
    with pytest.raises(InputError, match="no Ray cluster runs on this machine"):
        check_address("auto")


def test_a_cluster_is_reached(ray_cluster: str) -> None:
    import ray

    check_address(ray.get_runtime_context().gcs_address)


@pytest.mark.parametrize("command", ["score"])
@pytest.mark.parametrize(
    ("folder", "words"), [("l" * 80, "too long a name"), ("file/below", "cannot be made"), ("file", "cannot be made")]
)
def test_a_temporary_folder_that_ray_cannot_use_is_refused_and_nothing_is_written(
    command: str, folder: str, words: str, alone: Path, corpus: Path, make_model: Callable[[int], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / folder))
    arguments = [word.format(corpus=corpus, model=make_model(1)) for word in COMMANDS[command]]
    capsys.readouterr()  # of making the model
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert words in said or "too long a name" in said
    assert "RAY_TMPDIR=/tmp" in said
    assert list(alone.iterdir()) == []
