"""Forks processes that have imported torch and transformers already: Ray's workers, and commands beside the tests.

Such a process spends ten seconds of computing on its imports, and a tenth of that on what a small test asks of it. A forked one
has its own arguments, environment, folder, module path and streams; neither Ray nor rho-score was imported before it was
forked. Jobs whose environment Ray sets up, and clusters that rho-score starts itself, have workers that start in Ray's own way.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import psutil

START_WORKER = str(Path(__file__).with_name("start_worker.py"))
"""What a node of Ray is given as `setup_worker_path`, so that its workers are forked."""
FORKED = [sys.executable, str(Path(__file__).with_name("client.py"))]
"""In place of `python -m`, for a command that may be forked."""

# Else a raylet that lost a worker ends the process group of the process that it started itself. That was the client, which is
# long gone: its number may be another's by now.
SETTINGS = {"RAY_process_group_cleanup_enabled": "0"}

MODULES = (
    "asyncio",
    "jsonschema",  # this and pandas: for Ray
    "pandas",
    "pyarrow.parquet",
    "pyarrow.dataset",
    "fsspec.implementations.local",
    "torch",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)


class ForkServer:
    """The server as a process, a context manager. `FORK_SERVER` in the environment tells clients where it listens.

    Of several, clients ask the youngest that has not ended, in whatever order they end.
    """

    _before: ClassVar[dict[str, str | None]] = {}  # the environment without any
    _running: ClassVar[list["ForkServer"]] = []

    def __init__(self, within: Sequence[str] = ()) -> None:
        """within: a command that runs another one, as `ip netns exec NAME` does; the server is run by it."""
        self._within = within

    def __enter__(self) -> "ForkServer":
        self._folder = tempfile.TemporaryDirectory(prefix="fork")
        self._process = subprocess.Popen(
            [*self._within, sys.executable, __file__, self._folder.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        if not self._running:
            self._before.update({name: os.environ.get(name) for name in self._settings()})
        self._running.append(self)
        os.environ.update(self._settings())
        return self

    def _settings(self) -> dict[str, str]:
        return SETTINGS | {"FORK_SERVER": f"{self._folder.name}/socket"}

    def __exit__(self, *_: object) -> None:
        self._running.remove(self)
        for name, value in (self._running[-1]._settings() if self._running else self._before).items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        assert self._process.stdin is not None
        self._process.stdin.close()  # so it ends
        self._process.wait(20)
        self._folder.cleanup()

    def workers_of(self, raylet: int) -> list[psutil.Process]:
        """Workers that this raylet asked for and that are still there."""
        asked = Path(self._folder.name) / str(raylet)
        mine = {int(path.name) for path in asked.iterdir()} if asked.exists() else set()
        return [process for process in psutil.Process(self._process.pid).children() if process.pid in mine]


def serve(folder: Path) -> tuple[socket.socket, dict[str, Any]] | None:
    """Fork for each request. In a fork: who asked, and what for; in the server: None, once its input ends."""
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # none becomes a zombie
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen(64)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return None
            client, _ = listener.accept()
            content, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
            if content and os.fork() == 0:
                os.setpgid(0, 0)  # a signal to a group of processes is for one worker alone
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                    os.close(stream)
                request: dict[str, Any] = json.loads(content)
                if raylet := request["environment"].get("RAY_RAYLET_PID"):
                    (folder / raylet).mkdir(exist_ok=True)
                    (folder / raylet / str(os.getpid())).touch()
                return client, request
            for stream in streams:
                os.close(stream)
            client.close()


def become(client: socket.socket, request: dict[str, Any]) -> int:
    """Run what the request asks for, as `python FILE` or `python -m MODULE` would; the exit code, which the client is told."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    sys.orig_argv = [sys.executable, *sys.argv]
    sys.path[:] = request["path"]
    sys.modules.pop("sitecustomize", None)
    importlib.invalidate_caches()
    client.send(b"1")
    process, end = os.getpid(), os._exit

    def end_at_once(code: int) -> NoReturn:
        if os.getpid() == process:  # not in a fork of this one
            with suppress(OSError):
                client.send(b"%d" % code)
        end(code)

    os._exit = end_at_once
    try:
        with suppress(ImportError):
            importlib.import_module("sitecustomize")
        run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
        run(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    with suppress(OSError):  # the client waits no more
        client.send(b"%d" % code)
    return code


if __name__ == "__main__":
    if (forked := serve(Path(sys.argv[1]))) is not None:
        sys.exit(become(*forked))
