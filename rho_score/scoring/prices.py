"""Prices, and a table of node types: what they cost, how many workers they hold and how fast these are."""

import csv
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files

from rho_score.config import PlanConfig, ScoreConfig
from rho_score.errors import InputError
from rho_score.files.folder import file_at

MOST = 1_000_000_000
COLUMNS = ("node_type", "accelerator", "workers", "price_per_hour", "spot_price_per_hour", "relative_speed")


@dataclass(frozen=True, kw_only=True)
class NodeType:
    """A row of the table. A worker there has `relative_speed` times the speed that was measured; None is unknown."""

    name: str
    accelerator: str
    workers: int
    price: Fraction
    spot_price: Fraction | None
    relative_speed: Fraction | None


def check_prices(config: ScoreConfig | PlanConfig) -> None:
    """Raises InputError for a price that cannot be."""
    for name in ("price_per_hour", "price_per_million_tokens"):
        if (price := getattr(config, name)) is not None and not 0 < price < 1e9:
            raise InputError(f"--{name.replace('_', '-')} must be more than 0, got {price:g}.")


def read_prices(url: str | None) -> tuple[NodeType, ...]:
    """Reads a table, or that of the package.

    Raises:
        InputError: there is no such file, or it has a wrong column or value.
    """
    if url is None:
        return parse_prices((files("rho_score.scoring") / "prices.csv").read_text(), "the package's prices.csv")
    folder, name = file_at(url)
    try:
        return parse_prices(folder.read(name).decode("utf-8-sig"), url)  # spreadsheets begin a file with a BOM
    except FileNotFoundError:
        raise InputError(f"--prices {url}: there is no such file.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"--prices {url} is no text in UTF-8: {error}.") from None


def parse_prices(text: str, what: str) -> tuple[NodeType, ...]:
    """Parses a table; lines that begin with # are comments. `what` names it in errors."""
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    rows = list(csv.reader(line for _, line in lines))
    if len(rows) != len(lines):
        raise InputError(
            f"{what} has a quoted value that goes over several lines, or a quotation mark that is not closed."
        )
    head = rows[0] if rows else []
    if missing := [name for name in COLUMNS if name not in head]:
        raise InputError(f"{what} has no column {missing[0]}. Its columns must be {','.join(COLUMNS)}.")
    if len(rows) == 1:
        raise InputError(f"{what} has no node type.")
    return tuple(
        _node_type(dict(zip(head, row, strict=False)), f"{what}, line {i}")
        for (i, _), row in zip(lines[1:], rows[1:], strict=True)
    )


def _node_type(row: dict[str, str], where: str) -> NodeType:
    if not row.get("node_type", "").strip():
        raise InputError(f"{where}: node_type is empty.")
    workers = _number(row, "workers", where)
    price = _number(row, "price_per_hour", where)
    if workers is None or workers.denominator != 1:
        raise InputError(f"{where}: workers must be a whole number of at least 1, got {row.get('workers', '')!r}.")
    if price is None:
        raise InputError(f"{where}: price_per_hour is empty.")
    return NodeType(
        name=row["node_type"].strip(),
        accelerator=row.get("accelerator", "").strip(),
        workers=int(workers),
        price=price,
        spot_price=_number(row, "spot_price_per_hour", where),
        relative_speed=_number(row, "relative_speed", where),
    )


def _number(row: dict[str, str], name: str, where: str) -> Fraction | None:
    """Returns a value that is more than 0 and at most `MOST`; None if it is empty."""
    text = row.get(name, "").strip()
    if not text:
        return None
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if not 0 < value <= MOST:
        raise InputError(f"{where}: {name} must be a number that is more than 0 and at most {MOST:,}, got {text!r}.")
    return value
