"""Two runs on one output at once: the same command gives the same bytes, another command is refused; never a mixture."""

import json
import multiprocessing
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.stores.claim import claim
from rho_score.stores.manifest import new_manifest
from rho_score.stores.score_set import ScoreSet
from tests.faults import FaultyProxy, Rule
from tests.forkserver.server import FORKED, ForkServer
from tests.ray.conftest import digests
from tests.storage.conftest import SELECT, Run, files
from tests.storage.contender import contend
from tests.stores import cut, random_documents, write_scores

ROOT = Path(__file__).parents[2]
N_CONTENDERS, N_ROUNDS = 3, 6


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_of_several_that_begin_at_once_one_has_the_output(where: str, s3: FaultyProxy, tmp_path: Path) -> None:
    url = str(tmp_path) if where == "disk" else "s3://rho/contended"
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(N_CONTENDERS)
    contenders = [spawn.Process(target=contend, args=(url, n, N_ROUNDS, start)) for n in range(N_CONTENDERS)]
    for contender in contenders:
        contender.start()
    for contender in contenders:
        contender.join(200)
    won = [json.loads(Folder(url).read(f"won/{n}")) for n in range(N_CONTENDERS)]
    for i in range(N_ROUNDS):
        winners = [n for n in range(N_CONTENDERS) if won[n][i]]
        assert len(winners) == 1, f"round {i}: {winners}"
        assert json.loads(Folder(f"{url}/{i}").read("manifest.json"))["parts"] == {"setting": winners[0]}
        assert files(f"{url}/{i}").keys() == {"README.md", "manifest.json", "plan.parquet"}
        assert Folder(f"{url}/{i}").read("plan.parquet") == b"%d" % winners[0]


def test_a_claim_that_was_left_behind_is_told_and_does_not_stop_its_own_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rho_score.stores.claim.WAIT_S", 0.1)
    monkeypatch.setattr("rho_score.stores.claim.YIELD_S", 0.1)
    folder = Folder(str(tmp_path))
    dead, other = (new_manifest("selection", {"setting": n}) for n in (1, 2))
    folder.publish(f"claim-{dead['fingerprint']}.json", b"{}")
    with pytest.raises(
        InputError, match=rf"its claim is the file claim-{dead['fingerprint']}\.json there.*remove that file"
    ):
        claim(folder, other, {})
    assert not folder.exists("manifest.json")
    claim(folder, dead, {})
    assert list(folder.listing()) == ["README.md", "manifest.json"]


def _together(*commands: Sequence[str], address: str = "") -> list[tuple[int, str]]:
    """Commands as processes that are started at once: exit codes and what they said."""
    started = [
        subprocess.Popen(
            [*FORKED, "tests.forkserver.command", *command], cwd=ROOT, env={**os.environ, "RAY_ADDRESS": address}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for command in commands
    ]  # fmt: skip
    return [(process.wait(), said) for process in started for said in [process.communicate(timeout=240)[0]]]


@pytest.fixture(scope="module")
def score_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A score set of 40 units."""
    documents = [ref for ref, _ in random_documents(160, seed=11)]
    return write_scores(tmp_path_factory.mktemp("two") / "ref", [cut(documents, [4] * 40)])


def test_the_same_selection_twice_at_once_gives_the_same_bytes(
    fork_server: ForkServer, score_set: Path, tmp_path: Path
) -> None:
    command = ["select", "--ref", str(score_set), "--ratio", "0.5"]
    (peace,) = _together([*command, str(tmp_path / "peace")])
    both = _together([*command, str(tmp_path / "out")], [*command, str(tmp_path / "out")])
    assert [code for code, _ in both] == [0, 0], both
    assert digests(tmp_path / "out") == digests(tmp_path / "peace")
    for _, said in both:
        assert peace[1].splitlines()[-1] in said, "the accounts are others"


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_of_two_selections_at_once_the_other_is_refused(
    where: str, fork_server: ForkServer, score_set: Path, s3: FaultyProxy, bucket: Folder, tmp_path: Path
) -> None:
    first = ["select", "--ref", str(score_set)] if where == "disk" else SELECT[:-2]
    top = str(tmp_path) if where == "disk" else "s3://rho/storage/two"
    commands = [[*first, "--ratio", "0.3"], [*first, "--ratio", "0.7"]]
    slow = Rule("stall", "PUT", "two/out/manifest.json", seconds=1.5)  # each looks before the other has written
    with s3.failing(slow):
        both = _together(*([*command, f"{top}/out"] for command in commands))
    assert sorted(code for code, _ in both) == [0, 2], both
    winner = [code for code, _ in both].index(0)
    assert "was begun with other settings" in both[1 - winner][1]
    assert "ratio: there 0." in both[1 - winner][1]
    ((code, _),) = _together([*commands[winner], f"{top}/peace"])
    assert code == 0
    assert files(f"{top}/out") == files(f"{top}/peace")


def test_two_scoring_runs_at_once(
    ray_cluster: str, small_corpus: Path, make_model: Callable[[int], Path], run: Run, tmp_path: Path
) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    command = [
        "score", str(small_corpus), "--model", str(make_model(1)), "--id-column", "id", "--overlap", "8", "--cpus-per-worker",
        "1", "--unit-bytes", "1500", "--no-compile",
    ]  # fmt: skip
    outputs = {context: str(tmp_path / context) for context in ("32", "48")}
    mine = [*command, outputs["32"], "--context", "32"]
    same_a, same_b, other = _together(mine, mine, [*command, outputs["32"], "--context", "48"], address=address)
    codes = (same_a[0], same_b[0], other[0])
    assert codes in ((0, 0, 2), (2, 2, 0)), (same_a, same_b, other)
    refused = other if other[0] == 2 else same_a
    assert "context: there" in refused[1]
    context = "32" if other[0] == 2 else "48"
    code, said = run(*command, str(tmp_path / "peace"), "--context", context)
    assert code == 0, said
    assert digests(Path(outputs["32"])) == digests(tmp_path / "peace")
    assert ScoreSet.open(outputs["32"]).summary["documents"] == 20
