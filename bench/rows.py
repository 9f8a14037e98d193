"""Rows of a benchmark: as they are shown in a table, and as numbers with their units for whoever reads JSON."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rho_score.scoring.verify import Comparison


class Row(NamedTuple):
    """One row of a table."""

    what: str
    shown: str
    numbers: Mapping[str, float] = {}
    """The numbers in `shown`, each under its unit, such as `tokens/s`."""


def rows_of(answer: Iterable[Any]) -> list[Row]:
    """Returns rows that were handed over as JSON, with or without numbers."""
    return [Row(*row) for row in answer]


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Writes rows as JSON. Whoever reads meanwhile sees the old ones or the new ones, whole."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(list(rows), ensure_ascii=False, indent=1))
    part.replace(file)


def read_rows(file: Path) -> list[Row]:
    """Returns the rows of a file; none if there is no such file."""
    return rows_of(json.loads(file.read_text())) if file.exists() else []


def rate_row(name: str, rates: Sequence[float], ratios: Sequence[float] = (), ratio: str = "this scorer ÷ it") -> Row:
    """Tokens a second over the slices, and the ratios to another contender, which `ratio` names."""
    middle = statistics.median(rates)
    numbers = {"tokens/s": middle, "lowest tokens/s": min(rates), "highest tokens/s": max(rates)}
    shown = f"{middle:,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
    if ratios:
        numbers[ratio] = statistics.median(ratios)
        shown += f"; {ratio} = **{numbers[ratio]:.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
    return Row(name, shown, numbers)


def bytes_row(name: str, n_bytes: int) -> Row:
    """Memory."""
    return Row(name, f"{n_bytes / 2**30:.2f} GiB", {"bytes": n_bytes})


def accuracy_row(name: str, c: "Comparison") -> Row:
    """Differences of losses."""
    return Row(
        name,
        f"mean {c.mean:.1e}, p99 {c.p99:.1e}, largest {c.largest:.1e}; flips {c.flips:.3%} of {c.tokens:,} tokens",
        {"mean nats": c.mean, "p99 nats": c.p99, "largest nats": c.largest, "flips": c.flips, "tokens": c.tokens},
    )
