"""The server answers those who know its token, under this machine's names, and nobody else."""

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rho_score.errors import InputError
from rho_score.viewing.answers import Answers
from rho_score.viewing.server import application, serve
from tests.unit.viewing.conftest import Stores

TOKEN = "the-token"
Response = tuple[int, dict[str, str], str]


def _ask(answers: Answers, *requests: tuple[str, str, dict[str, str]]) -> list[Response]:
    """The responses of a server to some requests: method, path and headers."""

    async def ask() -> list[Response]:
        runner, port = await serve(application(answers, TOKEN), 0)
        found = []
        async with aiohttp.ClientSession() as session:
            for method, path, headers in requests:
                url = f"http://127.0.0.1:{port}{path}"
                async with session.request(method, url, headers=headers, allow_redirects=False) as response:
                    found.append((response.status, dict(response.headers), await response.text()))
        await runner.cleanup()
        return found

    return asyncio.run(ask())


@pytest.fixture
def answers(opened: Callable[..., Answers]) -> Answers:
    return opened("selection")


def test_the_browser_gets_the_token_once(answers: Answers) -> None:
    async def ask() -> list[Response]:
        runner, port = await serve(application(answers, TOKEN, once="a-ticket"), 0)
        found = []
        async with aiohttp.ClientSession() as session:
            for path in ("/a-ticke/", "/a-ticket/api/stores", "/a-ticket/", "/a-ticket/"):
                async with session.get(f"http://127.0.0.1:{port}{path}", allow_redirects=False) as response:
                    found.append((response.status, dict(response.headers), await response.text()))
        await runner.cleanup()
        return found

    found = asyncio.run(ask())
    assert [(status, headers.get("Location")) for status, headers, _ in found] == [
        (403, None),
        (403, None),
        (303, f"/{TOKEN}/"),
        (403, None),
    ]


PATHS = ["", "app.js", "api/stores", "api/documents?limit=1", "api/document?unit=0&row=0"]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_told_without_the_token(answers: Answers, path: str) -> None:
    starts = ("/", "//", "/other/", "/THE-TOKEN/", f"/{TOKEN}x/", f"/x{TOKEN}/", "/%20/")
    for status, headers, text in _ask(answers, *(("GET", start + path, {}) for start in starts)):
        assert status == 403
        assert text == "The URL lacks the token that the command printed.\n"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("path", PATHS)
def test_other_names_of_this_machine_are_refused(answers: Answers, path: str) -> None:
    names = (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example:80",
        "localhost.:80",
        "127.0.0.1:x",
        "",
        "[::1]x:1",
        "0.0.0.0:80",
    )
    refused = _ask(answers, *(("GET", f"/{TOKEN}/{path}", {"Host": name}) for name in names))
    assert {status for status, _, _ in refused} == {421}
    names = ("127.0.0.1", "127.0.0.1:9999", "localhost:1", "LOCALHOST:1", "[::1]:1", "[::1]")
    taken = _ask(answers, *(("GET", f"/{TOKEN}/{path}", {"Host": name}) for name in names))
    assert {status for status, _, _ in taken} == {200}


def test_every_answer_forbids_what_the_page_does_not_need(answers: Answers) -> None:
    for _, headers, _ in _ask(answers, *(("GET", f"/{TOKEN}/{path}", {}) for path in PATHS)):
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy == {
            "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data:",
            "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'", "trusted-types": "'none'",
        }  # fmt: skip
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")


def test_only_the_pages_own_files_are_served(answers: Answers) -> None:
    names = (
        "../answers.py",
        "..%2fanswers.py",
        "%2e%2e/answers.py",
        "..%5canswers.py",
        "nothing.js",
        "api/nothing",
        "static/app.js",
        "__init__.py",
    )
    for status, _, text in _ask(answers, *(("GET", f"/{TOKEN}/{name}", {}) for name in names)):
        assert status in (403, 404)  # the client itself shortens some
        assert "import" not in text
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        ((status, _, _),) = _ask(answers, (method, f"/{TOKEN}/api/stores", {}))
        assert status == 405


def test_a_wrong_question_is_an_answer(answers: Answers) -> None:
    found = _ask(
        answers,
        ("GET", f"/{TOKEN}/api/document?unit=0&row=9999", {}),
        ("GET", f"/{TOKEN}/api/documents?group=<script>", {}),
    )
    assert [status for status, _, _ in found] == [400, 400]
    assert all(headers["Content-Type"] == "application/json; charset=utf-8" for _, headers, _ in found)
    assert "no row" in found[0][2]


def test_a_taken_port_is_named(answers: Answers) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port} cannot be served at"):
            asyncio.run(serve(application(answers, TOKEN), port))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_prints_the_url_and_ends_cleanly(stores: Stores, tmp_path: Path, number: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "rho_score",
        "view",
        stores.url("selection"),
        "--no-browser",
        "--cache",
        str(tmp_path),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert "Ctrl-C" in process.stdout.readline()
        documents = asyncio.run(_documents(url))
    finally:
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert documents["n"] == 60
    assert [path.suffix for path in tmp_path.iterdir()] == [".duckdb"]


async def _documents(url: str) -> Any:
    """The first documents, once the index is ready."""
    end = time.monotonic() + 120
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < end:
            async with session.get(f"{url}api/progress") as response:
                if (await response.json())[0]["ready"]:
                    break
            await asyncio.sleep(0.1)
        async with session.get(f"{url}api/documents?limit=3") as response:
            return await response.json()


def test_a_folder_that_cannot_hold_the_index_is_named(stores: Stores, tmp_path: Path, capsys: Any) -> None:
    from rho_score.cli import main

    (tmp_path / "file").write_text("")
    assert main(["view", stores.url("selection"), "--no-browser", "--cache", f"{tmp_path}/file"]) == 2
    assert "--cache" in capsys.readouterr().err
    assert main(["view", f"{tmp_path}", "--no-browser"]) == 2
    assert "is not a rho-score store" in capsys.readouterr().err


def test_a_store_that_does_not_open_leaves_nothing_of_the_others(stores: Stores, tmp_path: Path, capsys: Any) -> None:
    from rho_score.cli import main

    folder = shutil.copytree(stores.url("ref"), tmp_path / "damaged")
    (folder / "plan.parquet").unlink()
    cache = tmp_path / "cache"
    code = main(["view", stores.url("base"), "--beside", str(folder), "--no-browser", "--cache", str(cache)])
    assert code == 1
    told = capsys.readouterr().err
    assert "plan.parquet" in told
    assert "--cache" not in told
    assert list(cache.iterdir()) == []
