"""Money is counted before it is spent, exactly, and what is on storage is never less than what was spent."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rho_score.config import ScoreConfig
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.scoring.ledger import Ledger
from rho_score.scoring.money import Budget, Spent
from rho_score.scoring.spending import Account


def _config(**changes: Any) -> ScoreConfig:
    settings = {"price_per_million_tokens": 0.1, "spend_at_most": 0.3} | changes
    return ScoreConfig(input="in", output="out", model="m", server="http://h", **settings)


def test_sums_are_exact() -> None:
    budget = Budget(price="0.1", limit="0.3")
    assert budget.cost(3_000_000) == Fraction(3, 10)
    assert budget.affords(Fraction(0), 3_000_000)
    assert not budget.affords(Fraction(0), 3_000_001)
    assert Budget(price="0.1", limit=None).affords(Fraction(10**9), 1)
    assert str(Spent({"0.1": 1_000_000, "0.2": 2_500_000})) == "0.6 for 3,500,000 tokens"


STEPS = st.lists(st.tuples(st.sampled_from(["begin", "more", "end", "die"]), st.integers(0, 40)), max_size=30)


@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(limit=st.integers(1, 200), steps=STEPS)
def test_the_limit_holds_whatever_happens(limit: int, steps: list[tuple[str, int]], tmp_path_factory: Any) -> None:
    """Units are begun, need more, give back, and the ledger dies and starts again."""
    folder = Folder(str(tmp_path_factory.mktemp("ledger")))
    budget = Budget(price="1000000", limit=str(limit))  # one for each token
    ledger = Ledger(folder.url, budget)
    paid: dict[str, int] = {}
    spent = 0
    for i, (step, n) in enumerate(steps):
        if step == "begin" and ledger.begin(f"u{i}", n):
            paid[f"u{i}"] = n
            spent += n
        elif step == "more" and ledger.more(n):
            spent += n
        elif step == "end" and paid:
            unit, had = paid.popitem()
            unused = min(n, had)
            ledger.end(unit, unused)
            spent -= unused
        elif step == "die":
            ledger = Ledger(folder.url, budget)
        assert Spent.read(folder).money == spent <= limit


def test_no_unit_is_begun_behind_one_that_is_too_dear(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), Budget(price="1000000", limit="10"))
    assert ledger.begin("a", 6)
    assert not ledger.begin("b", 5)
    assert not ledger.begin("c", 1), "smaller units must not overtake for ever"
    ledger.end("a", 2)
    assert ledger.begun() == {"a"}, "it may not be published yet"
    spent = Spent.read(Folder(str(tmp_path)))
    assert (spent.tokens, spent.wanted) == ({"1000000": 4}, 5)


def test_a_run_without_money_says_what_the_next_unit_needs(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    Spent({"0.1": 2_000_000}, wanted=1_500_000).write(folder)
    with pytest.raises(InputError, match=r"has spent 0\.2 for 2,000,000 tokens\. The next unit needs 1,500,000 tokens"):
        Account(_config(), folder)
    account = Account(_config(spend_at_most=0.35), folder)
    account.check_purse.take(1_500_000)
    with pytest.raises(InputError, match="leaves 1,500,000 tokens"):
        account.check_purse.take(1)
    account.note_check()
    assert Spent.read(folder) == Spent({"0.1": 3_500_000}, wanted=0)


def test_what_another_price_paid_counts(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    Spent({"1.0": 100_000}).write(folder)
    account = Account(_config(), folder)
    account.check_purse.take(2_000_000)
    with pytest.raises(InputError, match="leaves 2,000,000 tokens"):
        account.check_purse.take(1)
    account.note_check()
    assert account.close(1, 1) == "spent 0.3 for 2,100,000 tokens"


def test_the_run_ends_once_no_paid_unit_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    class Remote:
        class begun:
            @staticmethod
            def remote() -> set[str]:
                return {"a", "b", "c"}

    monkeypatch.setattr(ray, "get", lambda found: found)
    account = Account(_config(), Folder(str(tmp_path)))
    account.ledger = Remote
    assert not account.stops_after("a", paid=True)
    assert not account.stops_after("d", paid=False)
    assert not account.stops_after("b", paid=True)
    assert not account.stops_after("e", paid=False)
    assert account.stops_after("c", paid=True)
    Spent({"0.1": 2_900_000}, wanted=200_000).write(Folder(str(tmp_path)))
    with pytest.raises(
        RhoScoreError, match=r"0\.29 for 2,900,000 tokens were spent, and the next unit needs 200,000 tokens \(0\.02\)"
    ):
        account.close(3, 5)


def test_without_a_price_nothing_is_counted(tmp_path: Path) -> None:
    account = Account(_config(price_per_million_tokens=None, spend_at_most=None), Folder(str(tmp_path)))
    account.check_purse.take(10**12)
    account.note_check()
    assert not account.stops_after("a", paid=True)
    assert account.close(1, 1) == ""
    assert not list(tmp_path.iterdir())
