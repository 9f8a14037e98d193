"""What a run with a server spends, counted before it is spent, in `spent.json` of the output.

A unit is paid as a whole before its first request, and what it did not need is taken back at its
end. A run that is killed therefore never spent more than the file says. Prices and sums are exact
fractions.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from rho_score.cluster.ray_cluster import actor_here
from rho_score.config import ScoreConfig
from rho_score.errors import InputError, RhoScoreError
from rho_score.files.folder import Folder
from rho_score.files.json import dump_json
from rho_score.servers.purse import FreePurse, LimitedPurse, Purse, UnpaidError
from rho_score.stores.layout import SPENT
from rho_score.stores.shapes import SpentTokens, read_json

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The price of tokens, and how much may be spent."""

    price: str
    """Of a million tokens, as a decimal number."""
    limit: str | None

    @classmethod
    def of(cls, config: ScoreConfig) -> "Budget | None":
        """The budget of a run; None if it has no price."""
        if config.price_per_million_tokens is None:
            return None
        limit = config.spend_at_most
        return cls(price=str(config.price_per_million_tokens), limit=None if limit is None else str(limit))

    def cost(self, tokens: int) -> Fraction:
        """The price of so many tokens."""
        return Fraction(self.price) * tokens / MILLION

    def affords(self, spent: Fraction, tokens: int) -> bool:
        """True if so many tokens more stay within the limit."""
        return self.limit is None or spent + self.cost(tokens) <= Fraction(self.limit)


@dataclass
class Spent:
    """What was spent for an output so far, by all runs."""

    tokens: dict[str, int] = field(default_factory=dict)
    """Tokens that were sent, by the price of a million."""
    wanted: int = 0
    """The tokens of the unit that was too dear last; 0 if there is none."""

    @classmethod
    def read(cls, output: Folder) -> "Spent":
        """What `spent.json` says; nothing was spent if there is none."""
        if not output.exists(SPENT):
            return cls()
        found = read_json(output, SPENT, SpentTokens)
        return cls(dict(found["tokens_by_price"]), found["wanted"])

    def write(self, output: Folder) -> None:
        """Writes `spent.json`."""
        output.publish(SPENT, dump_json({"tokens_by_price": self.tokens, "wanted": self.wanted}))

    @property
    def money(self) -> Fraction:
        """What was paid."""
        return sum((Fraction(price) * n / MILLION for price, n in self.tokens.items()), Fraction())

    def __str__(self) -> str:
        return f"{float(self.money):,.6g} for {sum(self.tokens.values()):,} tokens"


class Ledger:
    """The actor that units are paid at. It starts again from the file if it dies."""

    def __init__(self, output: str, budget: Budget) -> None:
        self._output, self._budget = Folder(output), budget
        self._spent = Spent.read(self._output)
        self._begun: set[str] = set()
        self._closed = False

    def begin(self, unit: str, tokens: int) -> bool:
        """Pays a unit. False if the money does not suffice; no other unit is begun then."""
        if self._closed or not self.more(tokens):
            return False
        self._spent.wanted = 0
        self._begun.add(unit)
        return True

    def more(self, tokens: int) -> bool:
        """Pays tokens besides those of units: for requests that are made again, and for a worker's
        first one. If the money does not suffice, no other unit is begun."""
        paid = self._budget.affords(self._spent.money, tokens)
        if not paid:
            self._closed, self._spent.wanted = True, tokens
        self._add(tokens if paid else 0)
        return paid

    def end(self, unit: str, unused: int) -> None:
        """Takes back what a unit did not need."""
        self._add(-unused)

    def begun(self) -> set[str]:
        """The units that were begun, whether they have ended or not."""
        return set(self._begun)

    def _add(self, tokens: int) -> None:
        self._spent.tokens[self._budget.price] = self._spent.tokens.get(self._budget.price, 0) + tokens
        self._spent.write(self._output)


class UnitPurse(Purse):
    """The purse of a worker, which holds what was paid for the unit that it has in hand."""

    def __init__(self, ledger: Any) -> None:
        self._ledger, self._left = ledger, 0

    def begin(self, unit: str, tokens: int) -> bool:
        """Pays a unit; False if the money does not suffice."""
        paid = bool(self._asked("begin", unit, tokens))
        self._left = tokens if paid else 0
        return paid

    def end(self, unit: str) -> None:
        """Gives back what is left of the unit's money."""
        self._asked("end", unit, self._left)
        self._left = 0

    def take(self, tokens: int) -> None:
        if self._left < tokens:
            if not self._asked("more", tokens):
                raise UnpaidError(
                    "requests had to be made again, and --spend-at-most leaves nothing for them. Units that are published stay. "
                    "Run the same command with a higher --spend-at-most to go on."
                )
            self._left += tokens
        self._left -= tokens

    def give_back(self, tokens: int) -> None:
        self._left += tokens

    def _asked(self, method: str, *arguments: Any) -> Any:
        import ray

        return ray.get(getattr(self._ledger, method).remote(*arguments))


class Account:
    """The driver's side of what a run spends."""

    def __init__(self, config: ScoreConfig, output: Folder) -> None:
        """Raises InputError if a run before this one stopped for want of money, and there is no more."""
        self._output, self.budget = output, Budget.of(config)
        self.check_purse = FreePurse()
        self.ledger: Any = None
        self._stopped = False
        self._arrived: set[str] = set()
        self._waiting: set[str] | None = None
        if self.budget is None or self.budget.limit is None:
            return
        spent = Spent.read(output)
        if spent.wanted and not self.budget.affords(spent.money, spent.wanted):
            raise InputError(
                f"{output.url} has spent {spent}. The next unit needs {spent.wanted:,} tokens, which --spend-at-most "
                f"{self.budget.limit} leaves no money for. Give more to go on."
            )
        left = Fraction(self.budget.limit) - spent.money
        self.check_purse = LimitedPurse(int(left * MILLION / Fraction(self.budget.price)))

    def note_check(self) -> None:
        """Adds what the check of the server has spent, once the output is begun."""
        if self.budget is not None and self.check_purse.sent:
            spent = Spent.read(self._output)
            spent.tokens[self.budget.price] = spent.tokens.get(self.budget.price, 0) + self.check_purse.sent
            spent.wanted = 0
            spent.write(self._output)
            self.check_purse.sent = 0

    def open(self) -> None:
        """Starts the ledger, in a cluster that runs."""
        if self.budget is not None:
            self.ledger = actor_here(Ledger, self._output.url, self.budget)

    def stops_after(self, unit: str, *, paid: bool) -> bool:
        """True if the run ends after this unit: money is short, and no paid unit is under way."""
        import ray

        self._arrived.add(unit)
        self._stopped = self._stopped or not paid
        if not self._stopped:
            return False
        if self._waiting is None:
            self._waiting = ray.get(self.ledger.begun.remote())
        return self._waiting <= self._arrived

    def close(self, n_published: int, n_units: int) -> str:
        """What was spent, as text; empty without a price.

        Raises:
            RhoScoreError: the money did not suffice for all units.
        """
        if self.budget is None:
            return ""
        spent = Spent.read(self._output)
        if not self._stopped:
            return f"spent {spent}"
        raise RhoScoreError(
            f"stopped before --spend-at-most {self.budget.limit} was passed: {spent} were spent, and the next unit needs "
            f"{spent.wanted:,} tokens ({float(self.budget.cost(spent.wanted)):,.6g}). {n_published} of {n_units} units are published, "
            "and they stay. Run the same command with a higher --spend-at-most to go on."
        )
