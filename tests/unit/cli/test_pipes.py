"""A reader that goes away early ends no command, and nothing is said of it."""

import subprocess
import sys

import pytest

RUN = [sys.executable, "-c", "from rho_score.cli import run; run()"]


@pytest.mark.parametrize(
    "command",
    [
        "",
        "score",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("plan", "select", "curve", "dynamics", "export", "report")
        ),
    ],
)
def test_help_into_a_reader_that_goes_away_is_quiet(command: str) -> None:
    process = subprocess.Popen([*RUN, *command.split(), "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before it prints a word
    said = process.stderr.read()
    assert process.wait(120) == 0
    assert said == b""


@pytest.mark.parametrize("code", [0, 3])
def test_the_work_goes_on_and_its_exit_code_counts(code: int) -> None:
    """Many small prints, each flushed: the run is at its end though nobody reads on, on both streams."""
    program = (
        "import sys\nfrom rho_score.cli import entry\n"
        "def main(argv):\n"
        "    for i in range(20_000): print('line', i, flush=i % 2 == 0)\n"
        "    print('at its end', file=sys.stderr)\n"
        f"    return {code}\n"
        "entry.main = main\nentry.run()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    assert process.stderr.read() == b"at its end\n"
    assert process.wait(60) == code


def test_a_broken_error_stream_ends_nothing_either() -> None:
    program = (
        "import sys\nfrom rho_score.cli import entry\n"
        "def main(argv):\n"
        "    for i in range(5_000): print('line', i, file=sys.stderr, flush=True)\n"
        "    return 3\n"
        "entry.main = main\nentry.run()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(60) == 3
