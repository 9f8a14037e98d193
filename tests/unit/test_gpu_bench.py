"""`make gpu` needs a GPU: here its order, limits and results with parts that stand in, and its measurements with tiny models."""

import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from bench import gpu, scoring, training
from bench.gpu_page import BEGIN, END, publish
from bench.gpu_parts import Part, all_parts
from bench.in_fp8 import fp8_rows, weight_bytes
from bench.rows import Row, read_rows, write_rows
from bench.texts import Slice
from rho_score.inference.scorer import Scorer
from tests.oracle import load_float32, plain_losses

ABOUT = {
    "gpu": "none",
    "cpu": "a CPU",
    "memory": {"GiB": 1.0},
    "python": "3",
    "versions": {"torch": "2"},
    "commit": "c",
    "date": "d",
}


def _part(name: str, code: str, **options: Any) -> Part:
    """A part that runs Python code, in which RESULT is the file for its rows."""
    settings: dict[str, Any] = {"about": "a stand-in", "limit_s": 60.0, "least_s": 0.0} | options
    command = [sys.executable, "-c", f"import sys; RESULT = sys.argv[1]\n{code}", "{result}"]
    return Part(name=name, command=command, **settings)


WRITES = 'open(RESULT, "w").write(\'[["speed", "1,200 tokens/s", {"tokens/s": 1200.5}]]\')\n'
HANGS = "import subprocess, time; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); time.sleep(600)"


def test_a_part_may_fail_or_hang_alone_and_keeps_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "TO_END_S", 2.0)
    parts = [
        _part("good", WRITES),
        _part("half", WRITES + "raise ValueError('no such | kernel')"),
        _part("hangs", WRITES + HANGS, limit_s=3.0),
        _part("silent", "print('nothing to say')"),
        _part("torn", 'open(RESULT, "w").write("[[")'),
        Part(name="absent", about="", command=["/no/such/program"], limit_s=9.0, least_s=0.0),
        _part("last", WRITES),
        _part("too long", WRITES, least_s=1e6),
    ]
    started = time.monotonic()
    results = tmp_path / "gpu.json"
    whole = gpu.run_parts(parts, budget_s=120, results=results, about=ABOUT)
    assert time.monotonic() - started < 100
    assert json.loads(results.read_text()) == json.loads(json.dumps(whole))
    found = {part["name"]: part for part in whole["parts"]}
    assert list(found) == [part.name for part in parts]
    speed = {"what": "speed", "shown": "1,200 tokens/s", "numbers": {"tokens/s": 1200.5}}
    for name in ("good", "half", "hangs", "last"):
        assert found[name]["rows"] == [speed]
    assert found["good"]["error"] is found["last"]["error"] is None
    assert found["half"]["error"] == "exit code 1: ValueError: no such | kernel"
    assert found["hangs"]["error"] == "not finished after 3 s"
    assert found["silent"]["error"] == "no result: nothing to say"
    assert "JSONDecodeError" in found["torn"]["error"]
    assert "FileNotFoundError" in found["absent"]["error"]
    assert found["too long"]["error"].endswith("s of the 2 minutes are left")
    assert found["too long"]["seconds"] == 0
    sleeper = int((tmp_path / "gpu" / "hangs.log").read_text().split()[0])
    assert not psutil.pid_exists(sleeper) or psutil.Process(sleeper).status() == psutil.STATUS_ZOMBIE
    page = publish(f"before\n{BEGIN}\nold\n{END}\nafter\n", whole)
    assert page == publish(page, whole)  # again changes nothing
    assert page.startswith("before\n")
    assert page.endswith(f"{END}\nafter\n")
    assert "old" not in page
    assert f"| good ({found['good']['seconds']:.0f} s) | speed | 1,200 tokens/s |" in page
    assert "|  | **not finished** | exit code 1: ValueError: no such \\| kernel |" in page
    with pytest.raises(ValueError, match="the page lacks the line"):
        publish("a page without markers", whole)


def test_the_budget_shortens_the_last_part_that_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "TO_END_S", 2.0)
    parts = [_part("hangs", HANGS), _part("late", WRITES, least_s=1.0)]
    first, second = gpu.run_parts(parts, budget_s=2, results=tmp_path / "gpu.json", about=ABOUT)["parts"]
    assert first["error"] == "not finished after 2 s"
    assert second["error"] == "skipped: 0 s of the 0.0333333 minutes are left"


def test_tests_are_counted_with_their_reasons(tmp_path: Path) -> None:
    file = tmp_path / "test_three.py"
    file.write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2, 'not the same'\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_none(n): pytest.skip('no CUDA device')\n"
    )
    other = tmp_path / "test_whole.py"
    other.write_text("import pytest\npytest.skip('no torchao', allow_module_level=True)\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        str(file),
        str(other),
        "--junitxml",
        "{result}",
    ]
    part = Part(name="tests", about="", command=command, limit_s=100.0, result="junit")
    found = gpu.run_part(part, limit_s=100, folder=tmp_path)
    counts, bad, *skipped = found["rows"]
    assert counts["numbers"] == {"passed": 1, "failed": 1, "skipped": 3}
    assert bad["what"] == "failed: test_bad"
    assert "not the same" in bad["shown"]
    whys = {row["what"]: row["shown"] for row in skipped}
    assert whys.keys() == {"skipped: 2", "skipped: 1"}
    assert whys["skipped: 2"] == "no CUDA device"
    assert "no torchao" in whys["skipped: 1"]
    assert found["error"].startswith("exit code 1: ")


def test_the_real_parts_name_commands_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    parts = all_parts("/venv/bin/python")
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        module = part.command[2]
        assert part.command[:2] == [sys.executable, "-m"]
        assert module in ("pytest", "bench.scoring", "bench.training")
        assert part.least_s <= part.limit_s <= 300
        for word in part.command:
            assert not word.startswith("tests/") or (gpu.ROOT / word).exists()
    gpu.main(["--dry-run", "--vllm-python", "/venv/bin/python"])
    told = capsys.readouterr().out
    for part in parts:
        assert f"{part.name}: {part.about}, at most {part.limit_s:.0f} s\n  {shlex.join(part.command)}\n" in told
    with pytest.raises(SystemExit):
        gpu.main(["--only", "a part that is none"])
    assert "there is no part 'a part that is none'" in capsys.readouterr().err
    assert BEGIN in gpu.PAGE.read_text()


def test_the_machine_has_its_versions_and_its_commit() -> None:
    about = gpu.machine()
    assert (
        about["versions"]["torch"] == torch.__version__.split("+")[0] or about["versions"]["torch"] == torch.__version__
    )
    assert len(about["commit"].split(",")[0]) == 40
    json.dumps(about)


# --- the measurements themselves, with a tiny model on a CPU


def test_rows_go_through_json(tmp_path: Path) -> None:
    rows = [Row("head", ""), Row("speed", "1 token/s", {"tokens/s": 1.25})]
    write_rows(tmp_path / "rows.json", rows)
    assert read_rows(tmp_path / "rows.json") == rows
    assert read_rows(tmp_path / "none.json") == []


@pytest.fixture
def bench(make_model: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch) -> scoring.Bench:
    """The contenders with a tiny model, not compiled."""
    made = scoring.Bench._scorer

    def not_compiled(self: scoring.Bench, quantize: Any = None, **options: Any) -> Scorer:
        return made(self, None, **(options | {"compile": False, "context": 64, "overlap": 8}))

    monkeypatch.setattr(scoring.Bench, "_scorer", not_compiled)
    monkeypatch.setattr(scoring.gc, "collect", lambda: 0)  # it takes longer than all else here
    monkeypatch.setattr(scoring, "CONTEXT", 64)
    monkeypatch.setattr(scoring, "OVERLAP", 8)
    return scoring.Bench(make_model(1), "float32")


def _dealt() -> list[Slice]:
    random = np.random.default_rng(0)
    ids = [[random.integers(0, 400, n).astype(np.int32) for n in (90, 30, 20, 12, 40, 25, 33, 15)] for _ in range(3)]
    return [Slice(["text"] * len(one), one) for one in ids]


def test_contenders_are_handed_over_as_numbers(bench: scoring.Bench, make_model: Callable[[int], Path]) -> None:
    dealt = _dealt()
    loop = {"one document at a time, float32, whole logits": bench.one_by_one}
    rows = {row.what: row for row in scoring.interleaved(bench, dealt, loop)}
    ours, bare = rows["this scorer"], rows["bare compiled body and head product, same passes"]
    assert 0 < ours.numbers["lowest tokens/s"] <= ours.numbers["tokens/s"] <= ours.numbers["highest tokens/s"]
    assert ours.shown.startswith(f"{ours.numbers['tokens/s']:,.0f} (")
    assert f"this scorer ÷ it = **{bare.numbers['this scorer ÷ it']:.2f}**" in bare.shown
    (accuracy,) = [row for row in rows.values() if "mean nats" in row.numbers]
    assert accuracy.numbers["tokens"] == sum(one.tokens for one in dealt)
    model = load_float32(make_model(1))
    expected = [plain_losses(model, i.tolist(), prefix=0, context=64, overlap=8) for one in dealt for i in one.ids]
    difference = np.abs(np.concatenate(bench.found) - np.concatenate(expected))
    assert accuracy.numbers["mean nats"] == pytest.approx(difference.mean(), abs=2e-5)


def test_what_is_measured_on_a_gpu_alone_runs(bench: scoring.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 1 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: None)
    dealt = _dealt()
    rows = {row.what: row for row in fp8_rows(bench, dealt)}
    assert rows["fp8"].numbers["it ÷ float32"] > 0
    whole = sum(p.numel() * p.element_size() for p in bench.plain.parameters())
    assert rows["weights in float32"].numbers == {"bytes": whole} == {"bytes": weight_bytes(bench.scorer)}
    peak = rows["peak memory of the GPU, fp8 (less the weights of the other)"]
    assert peak.numbers == {"bytes": (1 << 30) - whole}
    assert rows["float32 against float32, nats"].numbers["mean nats"] < 1e-4
    layouts = scoring.cuda_rows(bench, dealt)
    assert [row.what for row in layouts[1:]] == ["packed", "packed compiled", "padded"]
    assert all(row.numbers["MFU"] > 0 for row in layouts[1:])


def test_training_steps_are_handed_over_as_numbers(
    make_model: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "base_model", lambda: make_model(1))
    head, plain, *others = training.throughput(rounds=2, n_rows=2, block_size=32)
    assert "2 steps of 2 rows of 32 tokens" in head.what
    assert plain.numbers["it ÷ plain training"] == 1
    assert len(others) == 3
    assert all(row.numbers["tokens/s"] > 0 for row in others)
