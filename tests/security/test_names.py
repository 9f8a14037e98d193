"""Ids, groups and file names are hostile: nothing is written beside the output, nothing acts in a terminal or a spreadsheet."""

import csv
import io
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from rho_score.cli import main
from rho_score.config import CorpusConfig
from rho_score.corpus.plan import make_plan
from rho_score.corpus.units import new_unit
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.stores.layout import data_name, quarantine_name
from tests.security.hostile import CONTROLS, EVERY, FORMULAS, PATHS, PAYLOADS, write_hostile

ANY_NAME = st.text(max_size=300) | st.sampled_from(EVERY) | st.text("./\\ \x00\n~", max_size=12)


@given(ANY_NAME, ANY_NAME, st.integers(0, 1 << 60), st.integers(0, 1 << 60))
def test_a_units_name_is_a_plain_file_name(shard: str, other: str, start: int, stop: int) -> None:
    rest = {"format": ".jsonl", "size": 1, "version": "", "first_row": None, "rows": None, "text_bytes": 1}
    shard, other = (text.encode("utf-8", "replace").decode() for text in (shard, other))
    unit = new_unit(shard, start, stop, **rest).unit
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", unit)
    for name in (data_name(unit), quarantine_name(unit)):
        assert Path(Folder("/out").name(name)).resolve().parent in (Path("/out/data"), Path("/out/quarantine"))
    assert (unit == new_unit(other, start, stop, **rest).unit) == (shard == other)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..", "data/../../x", "x\x00y"])
def test_a_store_reads_and_writes_nothing_outside(name: str, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "store"))
    for act in (folder.read, folder.info, folder.open, folder.open_mapped, lambda n: folder.publish(n, b"x")):
        with pytest.raises(InputError, match="leads out"):
            act(name)
    assert not list(tmp_path.iterdir())


def _assert_shows_nothing_unseen(said: str) -> None:
    unseen = {c for c in said if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}
    assert not unseen, [said[max(0, said.index(c) - 200) : said.index(c) + 100] for c in unseen]
    assert not [line for line in said.split("\n") if line.startswith("rho-score: all done")]


def test_hostile_file_names_are_planned_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    names = [name.replace("/", "").replace("\x00", "")[:100] for name in [*CONTROLS, *FORMULAS, *PAYLOADS, *PATHS]]
    for i, name in enumerate(names):
        (corpus / f"{i}{name}.jsonl").write_text('{"text": "x"}\n')
        (corpus / f"{name}.txt").write_text("not a shard")
    (corpus / f"empty{names[0]}.jsonl").touch()
    assert len({unit.unit for unit in make_plan(CorpusConfig(input=str(corpus))).units}) == len(names)
    assert main(["plan", str(corpus)]) == 0
    (corpus / f"broken{names[0]}.parquet").write_bytes(b"PAR1")
    assert main(["plan", str(corpus)]) == 2
    said = capsys.readouterr()
    assert "‹001B›" in said.out
    assert "broken‹001B›" in said.err
    _assert_shows_nothing_unseen(said.out + said.err)


def test_hostile_ids_and_groups_stay_in_the_output(
    tokenizer: PreTrainedTokenizerFast,
    make_model: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work = tmp_path / "a" / "b" / "work"
    for name, seed in (("ref", 1), ("base", 2)):
        write_hostile(work / name, EVERY, tokenizer, make_model(1), seed=seed)
    sel, dyn = str(work / "sel"), str(work / "dyn")
    capsys.readouterr()  # what making the model said
    both = ["--ref", f"{work}/ref", "--base", f"{work}/base"]
    assert main(["select", *both, sel, "--ratio", "0.5", "--per-group"]) == 0
    assert main(["curve", sel, "--csv", f"{work}/curve.csv", "--plot", f"{work}/curve.svg"]) == 0
    assert main(["dynamics", dyn, "--scores", f"{work}/base", f"{work}/ref", "--plot", f"{work}/dynamics.svg"]) == 0
    assert main(["select", *both, f"{work}/none", "--quota", "nobody=0.5"]) == 1  # names the groups that there are
    for store in ("ref", "sel", "dyn"):
        assert main(["report", f"{work}/{store}", f"{work}/{store}.html"]) == 0
    said = capsys.readouterr()
    _assert_shows_nothing_unseen(said.out + said.err)
    assert "Traceback" not in said.err
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(work)]
    assert outside == []
    tops = {
        "ref",
        "base",
        "sel",
        "dyn",
        "none",
        "curve.csv",
        "curve.svg",
        "dynamics.svg",
        "ref.html",
        "sel.html",
        "dyn.html",
    }
    assert {path.name for path in work.iterdir()} <= tops
    csv.field_size_limit(2_000_000)
    rows = list(csv.DictReader(io.StringIO((work / "curve.csv").read_bytes().decode(), newline="")))
    groups = {row["group"] for row in rows}
    assert not [group for group in groups if group.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    assert {f"'{formula}" for formula in FORMULAS} <= groups
