"""The options of `rho-score status`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from rho_score.config.option import Group, metavar

_SHOWN = Group("What is shown")


@dataclass(frozen=True, kw_only=True)
class StatusConfig:
    """Say how far a run is, and whether it lives.

    It reads the output of any command that writes a store, from any machine that can read it, and
    changes nothing. A run leaves a sign of life there every 30 seconds.

    Exit codes: 0 finished; 10 running; 11 stuck; 12 dead, its signs stopped; 13 failed or
    interrupted; 14 unknown, it left no signs; 2 there is no store.
    """

    output: Annotated[Positional[str], metavar("OUTPUT")]
    """The output of the run, as a path or as any fsspec URL."""
    price_per_hour: Annotated[float | None, _SHOWN, metavar("PRICE")] = None
    """The price of one worker-hour. The money so far is then told."""
    stuck_after: Annotated[float, _SHOWN, metavar("MINUTES")] = 30.0
    """A run is stuck if its phase, units and tokens have not changed for so long."""
    watch: Annotated[tuple[float, ...] | None, _SHOWN, metavar("[SECONDS]")] = None
    """Look again every 10 seconds, or as often as given, until the run is no longer running."""
    json: Annotated[bool, _SHOWN] = False
    """Print one JSON object for each look, on one line."""
