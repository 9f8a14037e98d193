"""Configuration files and arguments."""

import contextlib
import io
from collections.abc import Sequence

from hypothesis import strategies as st

from rho_score.cli.config_file import from_file
from rho_score.cli import entry as cli
from rho_score.errors import RhoScoreError
from tests.fuzz.place import OURS, place

CONFIGS = [
    b"model: m\nworkers: 1:64\ngroup-column: source\ncontext: 2048\nunit_bytes: 300\nsignals: [entropy, rank]\n",
    b"ref: [math=a, code=b]\nquota: '*=0.3'\ncombine: union\nratio: 0.5\nseed: 0x10\nkeep: high\n",
    b"scores: [a, b]\nsteps: [1, 2.5]\nkeep: [H-L]\nrise: .inf\n",
    b"a: &a [*a]\nmodel: !!python/object/apply:os.system ['true']\n",
    b"model: 2026-01-01\ntext_column: ~\nratio: 1e400\nworkers: [1, {a: b}]\n? [complex, key]\n: x\n",
]


def config_file(content: bytes) -> None:
    """The same file for every command; refused where every command refuses it."""
    path = place() / "run.yaml"
    path.write_bytes(content)
    taken = 0
    for command in cli.COMMANDS:
        with contextlib.suppress(*OURS):
            from_file(cli.COMMANDS[command].config, str(path), [command])
            taken += 1
    if not taken:
        raise RhoScoreError("no command takes it")


def arguments(content: bytes) -> None:
    """Arguments apart by NUL; they are only parsed."""
    arguments = content.decode(errors="replace").split("\0")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            cli.parse(arguments)
        except SystemExit as end:
            if end.code not in (0, 2):
                raise
            raise RhoScoreError("usage") from None


COMMANDS = [
    "plan a",
    "score a b --model m",
    "select --ref a b --ratio 0.5",
    "report a b",
    "curve a --ratio 0.1 0.2",
    "export a b --format bin",
]
WORDS = [
    "plan", "score", "select", "curve", "dynamics", "export", "report", "--ref", "a", "m=a", "--ratio", "0.6", "nan", "-1", "--tokens", "1e9",
    "--quota", "*=0.5", "--config", "/dev/null", "--help", "--", "", "--workers", "1:4", "--scores", "--format", "bin", "--model", "--signals",
    "entropy", "--no-compile", "--dtype", "--context", "99999999999999999999", "--level", "document", "\x1b[31m", "é", "=", "--=",
]  # fmt: skip


def argument_bytes(commands: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    word = st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), st.text(max_size=6))
    more = st.lists(word, max_size=6).map(lambda words: "\0".join(words).encode())
    return st.one_of(more, st.sampled_from(commands), st.tuples(st.sampled_from(commands), more).map(b"\0".join))
