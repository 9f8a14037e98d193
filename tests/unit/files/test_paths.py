"""`~` and variables in paths; places that cannot be written."""

import os
import sys
from pathlib import Path

import pytest

from rho_score.cli.entry import main, parse


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.setenv("BUCKET", "corpora")
    monkeypatch.delenv("NOWHERE", raising=False)


def _parsed(tmp_path: Path, content: str, *arguments: str) -> object:
    (tmp_path / "run.yaml").write_text(content)
    return parse([arguments[0], "--config", str(tmp_path / "run.yaml"), *arguments[1:]])


def test_paths_in_a_file_have_home_and_variables(tmp_path: Path) -> None:
    content = "input: s3://$BUCKET/web\noutput: ~/out\nmodel: ${DATA}/model\ntext_column: $DATA\n"
    config = _parsed(tmp_path, content, "score")
    assert vars(config).items() >= {
        "input": "s3://corpora/web", "output": "/home/me/out", "model": "/data/model", "text_column": "$DATA",
    }.items()  # fmt: skip
    config = _parsed(tmp_path, "ref: [math=~/a, code=$DATA/b]\nbase: ~/base\nratio: 0.5\noutput: $DATA/$$x", "select")
    assert vars(config).items() >= {
        "ref": ("math=/home/me/a", "code=/data/b"), "base": "/home/me/base", "output": "/data/$x",
    }.items()  # fmt: skip
    config = _parsed(tmp_path, "scores: [~/a, $DATA/b]\noutput: out\nplot: ~/x.svg", "dynamics")
    assert vars(config).items() >= {"scores": ("/home/me/a", "/data/b"), "plot": "/home/me/x.svg"}.items()
    config = _parsed(tmp_path, "selection: ~/s\nplot: $DATA/x.svg\ncsv: ~/x.csv", "curve")
    assert vars(config).items() >= {"selection": "/home/me/s", "plot": "/data/x.svg", "csv": "/home/me/x.csv"}.items()
    config = _parsed(tmp_path, "store: ~/s\noutput: ~/r.html\nref: $DATA/r", "report")
    assert vars(config).items() >= {"store": "/home/me/s", "output": "/home/me/r.html", "ref": "/data/r"}.items()


@pytest.mark.parametrize("text", ["$NOWHERE/model", "${NOWHERE}/model", "${NOWHERE:-x}"])
def test_a_variable_that_is_not_set_is_named_with_its_option(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(f"model: {text}\n")
    assert main(["score", "--config", str(tmp_path / "run.yaml"), "in", "out"]) == 2
    said = capsys.readouterr().err
    assert "model" in said
    assert "NOWHERE" in said


def test_a_flag_wins_over_a_variable_that_is_not_set(tmp_path: Path) -> None:
    config = _parsed(tmp_path, "model: $NOWHERE/m\n", "score", "in", "out", "--model", "org/name")
    assert vars(config)["model"] == "org/name"


def test_a_home_that_the_shell_left_is_found() -> None:
    assert parse(["score", "~/in", "out", "--model=~/m"]).model == "/home/me/m"
    assert parse(["select", "--ref", "math=~/scores", "out", "--ratio", "0.5"]).ref == ("math=/home/me/scores",)
    assert parse(["score", "in", "out", "--model", "org/name@main"]).model == "org/name@main"


def test_the_file_itself_may_be_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text("model: m\n")
    assert parse(["score", "--config=~/run.yaml", "in", "out"]).model == "m"


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "/no/corpus", "{file}/out", "--model", "m"],
        ["score", "/no/corpus", "{file}", "--model", "m"],
        ["select", "--ref", "/no/scores", "{file}/out", "--ratio", "0.5"],
        ["dynamics", "{file}/out", "--scores", "/no/a", "/no/b"],
        ["dynamics", "out", "--plot", "{file}/x.svg", "--scores", "/no/a", "/no/b"],
        ["curve", "/no/selection", "--plot", "{file}/x.svg"],
        ["curve", "/no/selection", "--csv", "{file}/x.csv"],
        ["export", "/no/selection", "{file}/out", "--format", "bin"],
        ["report", "/no/store", "{file}/r.html"],
    ],
)
def test_an_output_inside_a_file_is_refused_before_anything_is_read(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main([a.format(file=tmp_path / "file") for a in arguments]) == 2
    assert f"{tmp_path}/file is not a folder" in capsys.readouterr().err


def test_a_folder_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert main(["curve", "/no/selection", "--plot", str(tmp_path / "x.svg")]) == 2
    assert f"{tmp_path} cannot be written to" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["dynamics", "out", "--plot", "x.svg", "--scores", "/no/a", "/no/b"],
        ["curve", "/no/selection", "--plot", "x.svg"],
    ],
)
def test_a_plot_without_its_library_is_refused_before_anything_is_read(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "rho_score.charts", raising=False)
    assert main(arguments) == 2
    assert "pip install 'rho-score[report]'" in capsys.readouterr().err


def test_a_folder_where_a_file_is_to_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "/no/store", str(tmp_path)]) == 2
    assert f"{tmp_path} is a folder" in capsys.readouterr().err
