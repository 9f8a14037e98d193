import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from rho_score import __version__
from rho_score.cli.commands import COMMANDS
from rho_score.cli.entry import main, parse
from rho_score.config import ScoreConfig, SelectConfig
from rho_score.config.describe import EVERY_COMMAND, describe, paragraphs


def test_flags_become_a_frozen_configuration() -> None:
    config = parse(["score", "in", "out", "--model", "m", "--group-column", "source", "--workers", "1:4"])
    assert config == ScoreConfig(input="in", output="out", model="m", group_column="source", workers="1:4")
    assert parse(["select", "--ref", "r", "out", "--ratio", "0.6"]) == SelectConfig(output="out", ref=("r",), ratio=0.6)


def test_a_file_gives_options_and_flags_win(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("input: in\nmodel: m\nunit-bytes: 300\ndtype: float16\n")
    config = parse(["score", "--config", str(path), "in", "out", "--dtype", "float32"])
    assert config == ScoreConfig(input="in", output="out", model="m", unit_bytes=300, dtype="float32")


def test_repeated_options_in_a_file_are_lists(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("ref: [math=a, code=b]\nquota: '*=0.3'\ncombine: union\n")
    config = parse(["select", "--config", str(tmp_path / "run.yaml"), "out"])
    assert config == SelectConfig(output="out", ref=("math=a", "code=b"), quota=("*=0.3",), combine="union")
    assert parse(["select", "--ref", "m=a", "--ref", "c=b", "out", "--ratio", "0.1"]).ref == ("m=a", "c=b")


@pytest.mark.parametrize("workers", ["4", "1:8", "1:32", "1:64", "'2:3'"])
def test_workers_in_a_file_are_what_is_written(tmp_path: Path, workers: str) -> None:
    (tmp_path / "run.yaml").write_text(f"model: m\nworkers: {workers}\n")
    config = parse(["score", "--config", str(tmp_path / "run.yaml"), "in", "out"])
    assert config.workers == workers.strip("'")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("modell: m", ["no option modell", "model"]),
        ("unit_bytes: many", ["unit_bytes", "many", "int"]),
        ("dtype: float8", ["dtype", "float8", "bfloat16"]),
        ("model: [m]", ["model", "['m']", "str"]),
        ("unit_timeout: 2026-01-01", ["unit_timeout", "float"]),
        ("signals: [entropy, ranks]", ["signals", "ranks"]),
        ("[1]", ["mapping"]),
        ("a: [", ["cannot be read"]),
    ],
)
def test_a_wrong_file_is_refused(
    tmp_path: Path, content: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(content)
    assert main(["score", "--config", str(tmp_path / "run.yaml"), "in", "out"]) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _printed(["--version"], capsys) == f"rho-score {__version__}\n"


@pytest.mark.parametrize("width", [80, 100])
def test_the_help_of_the_program_is_one_screen(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    said = _printed(["--help"], capsys)
    lines = said.splitlines()
    assert len(lines) <= 27
    assert max(map(len, lines)) <= width
    for name, command in COMMANDS.items():
        assert [line for line in lines if line.split()[:1] == [name] and line.endswith(paragraphs(command.config)[0])]


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_every_option_once(
    command: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    said = _printed([command, "--help"], capsys)
    lines = said.splitlines()
    assert max(map(len, lines)) <= width
    assert said.isascii()  # whatever the encoding of the terminal
    assert "None" not in said
    words = " ".join(said.split())
    for group in [*describe(COMMANDS[command].config), EVERY_COMMAND]:
        assert lines.count(f"{group.title}:") == 1
        assert group.note in words
        for option in group.options:
            invocation = " ".join([", ".join(option.flags), option.metavar]).strip()
            assert len([line for line in lines if re.match(rf"  {re.escape(invocation)}(  |$)", line)]) == 1, invocation
            assert option.help in words
    for title, example in COMMANDS[command].examples.items():
        assert f"  {title}:\n    {example}\n" in said.replace(" \\\n      ", " ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_is_described_in_one_group(command: str) -> None:
    config = COMMANDS[command].config
    groups = describe(config)
    options = [option for group in groups for option in group.options]
    assert sorted(option.name for option in options) == sorted(field.name for field in fields(config))
    assert len({group.title for group in groups}) == len(groups)
    assert groups[0].title == "Arguments"
    assert not any(option.flags for option in groups[0].options)
    assert all(option.flags for group in groups[1:] for option in group.options)
    for text in [*paragraphs(config), *(option.help for option in options)]:
        assert text[0].isupper()
        assert text.endswith(".")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_parser_takes_what_is_described(command: str) -> None:
    """A "1" is a text, a whole number and a number."""
    config = COMMANDS[command].config
    options = [option for group in describe(config) for option in group.options]
    places = ["1" for option in options if not option.flags]
    given = {
        flag: [option.metavar.partition(",")[0].strip("{} .") if option.metavar.startswith("{") else "1"]
        * bool(option.metavar)
        for option in options
        for flag in option.flags
    }
    assert isinstance(
        parse([command, *places, *(word for flag, value in given.items() for word in (flag, *value))]), config
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_in_the_help_parse(command: str) -> None:
    examples = COMMANDS[command].examples
    assert 1 <= len(examples) <= 3
    for example in examples.values():
        program, *arguments = shlex.split(example)
        assert program == "rho-score"
        assert isinstance(parse(arguments), COMMANDS[command].config)


def test_help_is_given_wherever_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    whole = _printed(["select", "--help"], capsys)
    assert _printed(["select", "-h"], capsys) == whole
    assert _printed(["select", "--ratio", "0.5", "--help"], capsys) == whole
    with pytest.raises(SystemExit) as end:
        main(["select", "--ref", "a", "out", "--", "--help"])
    assert end.value.code == 2


def test_a_wrong_value_is_told_with_the_option_and_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["select", "--ref", "a", "out", "--ratio", "most"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    for words in ("--ratio RATIO", "most", "rho-score select --help"):
        assert words in said
    assert "(default: None)" not in said


def _printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["score"], ["score", "in", "out"], ["scores"], ["score", "in", "out", "--model", "m", "--x"]],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "{corpus}", "out", "--model", "/no/model"], ["no directory /no/model"]),
        (["score", "{corpus}", "out", "--model", "{model}", "--workers", "3:1"], ["--workers", "3:1"]),
        (
            ["score", "{corpus}", "out", "--model", "{model}", "--cpus-per-worker", "-1"],
            ["--cpus-per-worker", "got -1"],
        ),
        (["score", "{corpus}", "out", "--model", "{model}", "--batch-tokens", "0"], ["--batch-tokens", "got 0"]),
        (
            ["score", "{corpus}", "out", "--model", "{model}", "--gpus-per-worker", "-1"],
            ["--gpus-per-worker", "got -1"],
        ),
        (["score", "{corpus}", "out", "--model", "{model}", "--gpus-per-worker", "1.5"], ["a whole number", "got 1.5"]),
        (
            ["score", "{corpus}", "out", "--model", "{model}", "--context", "65"],
            ["--context 65", "64 positions"],
        ),
        (
            ["score", "{corpus}", "out", "--model", "{model}", "--context", "8", "--overlap", "7"],
            ["--overlap 7", "0..6"],
        ),
        (
            ["score", "{corpus}", "out", "--model", "{model}", "--text-column", "body"],
            ["no column 'body'", "--text-column"],
        ),
        (["score", "{corpus}", "{corpus}/out", "--model", "{model}"], ["lies inside the corpus"]),
        (["plan", "nosuch://bucket/corpus"], ["nosuch://bucket/corpus", "cannot be opened"]),
        (["select", "--ref", "/no/scores", "out", "--ratio", "0.5"], ["/no/scores", "manifest.json"]),
        (["select", "--ref", "/no/scores", "out"], ["exactly one of --ratio, --tokens, --threshold"]),
        (["select", "--ref", "/no/scores", "out", "--ratio", "60"], ["between 0 and 1", "60"]),
        (
            ["select", "--ref", "a", "--ref", "b", "out", "--ratio", "0.6"],
            ["two values are called 'ref'", "Name each"],
        ),
        (["select", "--ref", "a", "out", "--threshold", "inf"], ["--threshold", "finite", "inf"]),
        (
            [
                "select",
                "--ref",
                "a=x",
                "--ref",
                "b=y",
                "out",
                "--ratio",
                "0.6",
                "--combine",
                "union",
                "--share",
                "a=0.3",
                "--share",
                "a=0.5",
            ],
            ["--share a=0.5", "a has two shares"],
        ),
        (["curve", "/no/selection", "--ratio", "60"], ["--ratio", "between 0 and 1", "60"]),
        (["curve", "/no/selection", "--ratio", "nan"], ["--ratio", "nan"]),
        (["curve", "/no/selection", "--tokens", "-1"], ["--tokens", "-1"]),
        (["curve", "/no/selection", "--threshold", "inf"], ["--threshold", "finite", "inf"]),
        (["curve", "/no/selection"], ["/no/selection", "manifest.json"]),
        (["curve", "/no/selection", "--plot", "curve.gif"], ["curve.gif", ".svg, .png or .pdf"]),
        (["dynamics", "--scores", "a", "--", "out"], ["two checkpoints or more, got 1"]),
        (["dynamics", "out", "--scores", "a", "b", "--steps", "2", "1"], ["--steps must rise"]),
        (["export", "/no/selection", "out", "--format", "bin"], ["/no/selection", "manifest.json"]),
        (["report", "/no/store", "out.html"], ["/no/store"]),
        (["report", "{corpus}/c.jsonl", "out.html"], ["c.jsonl is not a rho-score store"]),
        (["score", "{corpus}/**/*.jsonl", "{corpus}/out", "--model", "{model}"], ["lies inside the corpus"]),
    ],
)
def test_what_cannot_be_run_is_2_and_says_why(
    arguments: list[str], words: list[str], corpus: Path, make_model: object, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    filled = [a.format(corpus=corpus, model=make_model(1)) for a in arguments]  # type: ignore[operator]
    assert main(filled) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_ends_without_a_traceback() -> None:
    """By the signal itself, so that a shell's loop around the command ends too."""
    code = "from rho_score.cli import entry\ndef main(argv): raise KeyboardInterrupt\nentry.main = main\nentry.run()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGINT
    assert ended.stderr == "rho-score: interrupted. What is published stays. The same command goes on from there.\n"


def test_a_library_that_aborts_at_the_end_of_the_interpreter_costs_no_run_its_exit_code() -> None:
    code = (
        "import atexit, ctypes\nfrom rho_score.cli import entry\nlibrary = ctypes.CDLL(None)\nlibrary.on_exit(library.abort, None)\n"
        "atexit.register(print, 'what Python has to do at its end')\nentry.main = lambda argv: print('done', end=', ') or 3\n"
        "entry.run()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (3, "done, what Python has to do at its end\n"), ended.stderr


def test_gpus_that_a_machine_on_its_own_has_not_are_not_waited_for(
    corpus: Path, make_model: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("rho_score.scoring.preflight.starts_its_own", lambda: True)
    options = ["--model", str(make_model(1)), "--gpus-per-worker", "512", "--workers", "2"]
    assert main(["score", str(corpus), str(tmp_path / "out"), *options]) == 2
    assert "2 workers of 512 GPUs each need 1024, but this machine has" in (said := capsys.readouterr().err)
    assert "RAY_ADDRESS" in said
    assert not (tmp_path / "out").exists()


def test_plan_tells_and_runs_nothing(
    corpus: Path,
    make_model: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", str(make_model(1)), "--tokens-per-second", "10", "--price-per-hour", "2"]  # type: ignore[operator]
    assert main(["plan", str(corpus), *arguments]) == 0
    said = capsys.readouterr().out
    for word in ("shards", "units", "documents", "tokens", "worker-hours", "cost", "NOTES.txt", "quarantine"):
        assert word in said
    assert list(tmp_path.iterdir()) == []
