"""Prices, and what was spent in `spent.json` of the output. Prices and sums are exact fractions."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

from rho_score.config import ScoreConfig
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject, dump_json
from rho_score.stores.layout import SPENT
from rho_score.stores.shapes import SpentMoney, read_json

MILLION = 1_000_000
HOUR_MS = 3_600_000


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The prices of tokens and of workers, as decimal numbers, and how much may be spent."""

    price: str | None = None
    """Of a million tokens."""
    hour_price: str | None = None
    """Of a worker-hour."""
    limit: str | None

    @classmethod
    def of(cls, config: ScoreConfig) -> "Budget | None":
        """The budget of a run; None if it has no price."""
        prices = config.price_per_million_tokens, config.price_per_hour
        if prices == (None, None):
            return None
        price, hour_price = (None if value is None else str(value) for value in prices)
        limit = config.spend_at_most
        return cls(price=price, hour_price=hour_price, limit=None if limit is None else str(limit))

    def cost(self, tokens: int, milliseconds: int = 0) -> Fraction:
        """The price of so many tokens and of so much time of workers."""
        return Fraction(self.price or 0) * tokens / MILLION + Fraction(self.hour_price or 0) * milliseconds / HOUR_MS

    def affords(self, spent: Fraction, tokens: int = 0, milliseconds: int = 0) -> bool:
        """True if so many tokens and so much time more stay within the limit."""
        return self.limit is None or spent + self.cost(tokens, milliseconds) <= Fraction(self.limit)


@dataclass
class Spent:
    """What was spent for an output so far, by all runs. Times are whole milliseconds."""

    tokens: dict[str, int] = field(default_factory=dict)
    """Tokens that were sent, by the price of a million."""
    wanted: int = 0
    """The tokens of the unit that was too dear last; 0 if there is none."""
    worker_ms: dict[str, int] = field(default_factory=dict)
    """The time of workers, by the price of an hour."""
    wanted_ms: int = 0
    """The time of workers that there was no money for last; 0 if there was enough."""
    of_workers: dict[str, int] = field(default_factory=dict)
    """The part of `worker_ms` of each worker of the run that is under way."""

    @classmethod
    def read(cls, output: Folder) -> "Spent":
        """What `spent.json` says; nothing was spent if there is none."""
        if not output.exists(SPENT):
            return cls()
        found = read_json(output, SPENT, SpentMoney)
        return cls(
            dict(found["tokens_by_price"]),
            found["wanted"],
            _milliseconds(found.get("worker_seconds_by_price", {})),
            milliseconds(found.get("wanted_worker_seconds", 0)),
            _milliseconds(found.get("workers", {})),
        )

    def write(self, output: Folder) -> None:
        """Writes `spent.json`."""
        found: JsonObject = {"tokens_by_price": self.tokens, "wanted": self.wanted}
        if self.worker_ms:
            found["worker_seconds_by_price"] = _seconds(self.worker_ms)
            found["wanted_worker_seconds"] = self.wanted_ms / 1000
            found["workers"] = _seconds(self.of_workers)
        output.publish(SPENT, dump_json(found))

    @property
    def for_tokens(self) -> Fraction:
        """What was paid for tokens."""
        return sum((Fraction(price) * n / MILLION for price, n in self.tokens.items()), Fraction())

    @property
    def for_workers(self) -> Fraction:
        """What was paid for the time of workers."""
        return sum((Fraction(price) * n / HOUR_MS for price, n in self.worker_ms.items()), Fraction())

    @property
    def money(self) -> Fraction:
        """What was paid."""
        return self.for_tokens + self.for_workers

    def __str__(self) -> str:
        what = [f"{sum(self.tokens.values()):,} tokens"] if self.tokens or not self.worker_ms else []
        what += [f"{hours(sum(self.worker_ms.values()))} worker-hours"] if self.worker_ms else []
        return f"{float(self.money):,.6g} for {' and '.join(what)}"


def milliseconds(seconds: float) -> int:
    """Seconds in whole milliseconds, rounded up."""
    return math.ceil(round(seconds * 1000, 3))


def _milliseconds(seconds: dict[str, float]) -> dict[str, int]:
    return {name: milliseconds(value) for name, value in seconds.items()}


def _seconds(whole: dict[str, int]) -> dict[str, float]:
    return {name: value / 1000 for name, value in whole.items()}


def hours(whole: int) -> str:
    return f"{whole / HOUR_MS:,.4g}"
