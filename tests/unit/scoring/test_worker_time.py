"""The time of workers: what is charged, and that a run whose workers obey never passes its limit."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rho_score.config import ScoreConfig
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.scoring import ledger as ledgers
from rho_score.scoring.ledger import Ledger
from rho_score.scoring.money import Budget, Spent
from rho_score.scoring.spending import Account
from rho_score.scoring.worker_time import AHEAD_S, GONE_S, QUIET_S, SILENT_S, START_S, WorkerTime


def _time(low: int = 1, high: int = 1) -> WorkerTime:
    return WorkerTime(opened=100.0, workers=(low, high))


def _hear(time: WorkerTime, worker: str, now: float, *, age: float, start_s: float = 1.0, done: int = 0) -> None:
    time.hear(worker, age=age, start_s=start_s, done=done, now=now)


def test_a_worker_counts_from_its_start_until_a_little_after_its_last_sign() -> None:
    time = _time()
    assert time.seconds(101) == {"": START_S}, "it is starting"
    _hear(time, "a", 110, age=6)
    assert time.seconds(110) == {"a": 6 + GONE_S}
    time.pay(110)
    assert time.seconds(110) == {"a": 6 + AHEAD_S}
    _hear(time, "a", 130, age=26)
    time.pay(130)
    assert time.seconds(130 + QUIET_S) == {"a": 26 + AHEAD_S}
    assert time.seconds(130 + SILENT_S) == {"a": 26 + AHEAD_S, "": 1.0}, "another one is starting"
    assert time.seconds(130 + SILENT_S + 1) == {"a": 26 + GONE_S, "": 1.0}
    _hear(time, "a", 150, age=46)
    assert time.seconds(150) == {"a": 46 + GONE_S}, "it was not gone"


def test_a_process_that_is_older_than_the_run_counts_from_the_run() -> None:
    time = _time()
    _hear(time, "a", 103, age=1000, start_s=900)
    assert time.seconds(103) == {"a": 3 + GONE_S}
    assert time.start_s == 3


def test_what_was_paid_ahead_is_taken_back_at_the_end() -> None:
    time = _time(low=3, high=3)
    _hear(time, "a", 110, age=10)
    time.pay(110)
    time.close()
    assert time.seconds(111) == {"a": 10 + GONE_S}


def test_all_workers_are_held_until_the_slowest_unit_is_done() -> None:
    time = _time(low=2, high=2)
    _hear(time, "a", 105, age=4)
    _hear(time, "b", 105, age=4)
    assert time.to_finish(1000, 105) == 0, "no speed is known"
    time.begin("u", "a", 1000, 105)
    _hear(time, "a", 115, age=14, done=500)
    _hear(time, "b", 115, age=14)
    assert time.to_finish(200, 115) == 2 * 10, "u needs 10 s more at 50 tokens/s, and the other one 4"
    time.end("u", 125)
    time.begin("v", "a", 1000, 125)
    time.end("v", 165)
    _hear(time, "b", 165, age=64)
    _hear(time, "a", 165, age=64)
    assert time.to_finish(1000, 165) == 2 * 40, "the slowest of both"
    time.begin("tiny", "a", 2, 165)
    time.end("tiny", 166)
    assert time.to_finish(1000, 166) == 2 * 40, "a tiny unit tells nothing of a large one"
    assert time.to_begin_again(1000, 166) == 2 * (4 + 40 + AHEAD_S)


class Clock:
    """The clock of the ledger."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(ledgers.time, "monotonic", lambda: self.now)


class Worker:
    """A worker that obeys: it ends when it hears that the money is gone."""

    def __init__(self, name: str, born: float, start_s: float) -> None:
        self.name, self.born, self.start_s = name, born, start_s
        self.unit: str | None = None
        self.ended = 0.0
        self.spoke = False


STEPS = st.lists(
    st.tuples(st.sampled_from(["wait", "begin", "end", "kill", "ledger"]), st.integers(0, 2), st.integers(0, 3000)),
    max_size=60,
)


@settings(max_examples=200, suppress_health_check=list(HealthCheck), deadline=None)
@given(limit=st.integers(100, 400), n_workers=st.integers(1, 3), start_s=st.floats(0.5, 14), steps=STEPS)
def test_the_limit_holds_for_any_order_of_signs_and_deaths(
    limit: int, n_workers: int, start_s: float, steps: list[tuple[str, int, int]], tmp_path_factory: Any
) -> None:
    """Workers speak every second, end at most two seconds after they hear of it, and are started again after a death."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock, folder = Clock(monkeypatch), Folder(str(tmp_path_factory.mktemp("time")))
        monkeypatch.setattr(ledgers.Folder, "publish", _in_memory)
        _Files.clear()
        budget = Budget(hour_price="3600", limit=str(limit))  # one for each second

        def ledger_of() -> Ledger:
            return Ledger(folder.url, budget, WorkerTime(opened=100.0, workers=(n_workers, n_workers)))

        monkeypatch.setattr(ledgers.Spent, "read", _read)
        ledger = ledger_of()
        workers = [Worker(f"w{i}", 100.0, start_s) for i in range(n_workers)]
        dead: list[Worker] = []
        over = False

        def second() -> None:
            nonlocal over
            clock.now += 1.0
            for worker in workers:
                age = clock.now - worker.born
                if age >= worker.start_s:
                    worker.spoke = True
                    over |= ledger.beat(worker.name, ("", 0), age, worker.start_s, 0)

        for i, (step, which, n) in enumerate(steps):
            if over:
                break
            worker = workers[which % n_workers]
            ready = clock.now - worker.born >= worker.start_s
            if step == "wait":
                for _ in range(n % 40):
                    if not over:
                        second()
            elif step == "begin" and ready and ledger.begin(f"u{i}", 0, worker.name, n):
                worker.unit = f"u{i}"
            elif step == "end" and worker.unit:
                ledger.end(worker.unit, 0)
                worker.unit = None
            elif step == "kill":
                worker.ended = clock.now
                dead.append(worker)
                workers[which % n_workers] = Worker(f"w{i}'", clock.now, start_s)
            elif step == "ledger":
                ledger = ledger_of()
            else:
                second()
        for worker in workers:
            worker.ended = clock.now + GONE_S
        spoke = [one for one in dead + workers if one.spoke]
        lived = sum(one.ended - one.born for one in spoke)
        assert lived <= limit, "the real time of the workers, not what the ledger says"
        for worker in workers:
            if worker.spoke:
                ledger.beat(worker.name, ("", 0), clock.now - worker.born, worker.start_s, 0)
        clock.now += SILENT_S
        assert ledger.settle()
        assert lived - 3 * len(dead) <= _read(folder).money <= limit, (
            "a ledger that dies forgets two seconds and a sign"
        )
        if over:
            assert not ledger.begin("late", 0, workers[0].name, 1)
            assert _read(folder).wanted_ms > 0


_Files: dict[str, bytes] = {}


def _in_memory(folder: Folder, name: str, content: bytes) -> None:
    _Files[name] = content


def _read(folder: Folder) -> Spent:
    if "spent.json" not in _Files:
        return Spent()
    found = json.loads(_Files["spent.json"])
    return Spent(
        found["tokens_by_price"], found["wanted"],
        *({k: round(v * 1000) for k, v in found.get(name, {}).items()} if name != "wanted_worker_seconds"
          else round(1000 * found.get(name, 0)) for name in ("worker_seconds_by_price", "wanted_worker_seconds", "workers")),
    )  # fmt: skip


def _config(**changes: Any) -> ScoreConfig:
    return ScoreConfig(input="in", output="out", model="m", **({"price_per_hour": 0.7, "spend_at_most": 3.0} | changes))


def test_money_for_tokens_and_for_workers_is_one_sum(tmp_path: Path) -> None:
    spent = Spent({"0.1": 1_000_000}, worker_ms={"0.7": 3_600_000, "1.3": 1})
    assert spent.money == Fraction(1, 10) + Fraction(7, 10) + Fraction(13, 10) / 3_600_000
    budget = Budget(price="0.1", hour_price="0.7", limit="0.8")
    assert budget.affords(Fraction(0), 1_000_000, 3_600_000)
    assert not budget.affords(Fraction(0), 1_000_000, 3_600_001)
    assert (
        str(Spent({"0.1": 1_000_000}, worker_ms={"0.7": 5_400_000})) == "1.15 for 1,000,000 tokens and 1.5 worker-hours"
    )
    spent.write(Folder(str(tmp_path)))
    assert Spent.read(Folder(str(tmp_path))) == spent


def test_a_file_without_workers_is_read(tmp_path: Path) -> None:
    (tmp_path / "spent.json").write_text('{"tokens_by_price": {"2.0": 7}, "wanted": 3}')
    assert Spent.read(Folder(str(tmp_path))) == Spent({"2.0": 7}, 3)
    (tmp_path / "spent.json").write_text(
        '{"tokens_by_price": {}, "wanted": 0, "worker_seconds_by_price": {"2.0": "x"}}'
    )
    with pytest.raises(InputError, match="does not hold what rho-score writes there"):
        Spent.read(Folder(str(tmp_path)))


def test_a_run_without_money_for_its_start_is_refused(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    seconds = 4 * (START_S + START_S + 3)
    enough = 0.7 * seconds / 3600
    with pytest.raises(
        InputError, match=r"The start of the workers needs about .* worker-hours, which --spend-at-most"
    ):
        Account(_config(workers="4:9", spend_at_most=round(enough - 0.0001, 6)), folder)
    Account(_config(workers="4:9", spend_at_most=round(enough + 0.0001, 6)), folder)
    Spent(worker_ms={"0.7": 3_600_000}, wanted_ms=7_200_000).write(folder)
    with pytest.raises(
        InputError, match=r"has spent 0\.7 for 1 worker-hours\. The next unit needs about 2 worker-hours"
    ):
        Account(_config(spend_at_most=2.09), folder)
    Account(_config(spend_at_most=2.1), folder)
    Account(_config(spend_at_most=0.1), folder, done=True)


def test_a_run_that_stopped_says_what_it_spent_and_what_is_missing(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    account = Account(_config(), folder)
    Spent(worker_ms={"0.7": 14_400_000}, wanted_ms=3_600_000).write(folder)
    assert account.close(5, 5) == "spent 2.8 for 4 worker-hours"
    account._stopped = True
    told = r"2\.8 for 4 worker-hours were spent, and the next unit needs about 1 worker-hours \(0\.7\)\. 3 of 5 units are published"
    with pytest.raises(RhoScoreError, match="stopped before --spend-at-most .*" + told):
        account.close(3, 5)
    Spent(worker_ms={"0.7": 16_000_000}).write(folder)
    with pytest.raises(RhoScoreError, match=r"stopped after --spend-at-most 3\.0 was passed: 3\.11111 for"):
        account.close(3, 5)


@pytest.mark.parametrize("refused", [True, False])
def test_what_the_next_unit_needs_is_not_what_the_whole_run_took(
    refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The money ends after ten hours, between two units: another run needs a start, a unit of 20 seconds, and the reserve."""
    clock, folder = Clock(monkeypatch), Folder(str(tmp_path))
    ledger = Ledger(folder.url, Budget(hour_price="3600", limit="36000"), WorkerTime(opened=100.0, workers=(1, 1)))
    over, units = False, 0
    while not over:
        clock.now += 1
        over = ledger.beat("a", ("", 0), clock.now - 100, 5, 0)
        if clock.now % 20 == 10 and not over:
            if units:
                ledger.end(f"u{units}", 0)
            if (refused or clock.now < 36_000) and ledger.begin(f"u{units + 1}", 0, "a", 1000):
                units += 1
    assert units > 1700
    assert Spent.read(folder).wanted_ms <= (10 + 20 + 10) * 1000


def test_what_was_never_begun_needs_what_the_workers_have_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver has waited for nodes for an hour; the worker has lived for some seconds."""
    clock, folder = Clock(monkeypatch), Folder(str(tmp_path))
    ledger = Ledger(folder.url, Budget(hour_price="3600", limit="30"), WorkerTime(opened=100.0, workers=(1, 1)))
    clock.now, born = 3700.0, 3695.0
    while not ledger.beat("a", ("", 0), clock.now - born, 5, 0):
        clock.now += 1
    assert 20_000 < Spent.read(folder).wanted_ms < 60_000


def test_a_ledger_that_starts_again_counts_no_worker_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, folder = Clock(monkeypatch), Folder(str(tmp_path))
    Spent(worker_ms={"3600": 50_000, "1": 9}).write(folder)
    budget = Budget(hour_price="3600", limit=None)
    for restarted in (False, True):
        ledger = Ledger(folder.url, budget, WorkerTime(opened=100.0, workers=(1, 1)))
        clock.now += 20
        ledger.beat("a", ("elsewhere", 1), clock.now - 100, 5, 0)
        if not restarted:
            clock.now += 3
            ledger.beat("gone", ("elsewhere", 2), 10, 5, 0)
            at_first = Spent.read(folder).of_workers["gone"]
    spent = Spent.read(folder)
    assert spent.of_workers == {"a": round((43 + AHEAD_S) * 1000), "gone": at_first}
    assert spent.worker_ms == {"3600": 50_000 + sum(spent.of_workers.values()), "1": 9}
