"""From the speed of one worker to the time and the cost of a run. Pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from rho_score.scoring.prices import NodeType

HOUR_S, DAY_S = 3600, 86400


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured of one worker."""

    tokens_per_s: float
    slowest: float
    """Tokens a second of the slowest unit, the time until it began included."""
    fastest: float
    start_s: float
    """Seconds from the start of the worker's process to its first unit."""
    units: int
    """Units that the speed was measured over; 0 if it is that of a part of one."""
    seconds: float
    """Seconds that it was measured for."""
    cpus: int = 0
    """Of the worker; 0 if it is not known."""
    gpus: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run has to do: so many tokens in so many units."""

    tokens: int
    units: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One unit as it came from the worker: its tokens, and when it began and ended."""

    tokens: int
    started: float
    ended: float


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a run costs on some nodes of a type."""

    node: NodeType
    nodes: int
    seconds: float
    cost: float


def measured(units: Sequence[Finished], start_s: float) -> Speed:
    """Returns the speed over these units of one worker, in the order in which they ended; at least one.

    Of three and more, the first is left out, because it is the first to have its shapes.
    """
    steady = list(units[1:]) if len(units) >= 3 else list(units)
    begun = units[0].ended if len(units) >= 3 else units[0].started
    befores = [begun, *(unit.ended for unit in steady[:-1])]
    of_units = [unit.tokens / max(unit.ended - before, 1e-9) for unit, before in zip(steady, befores, strict=True)]
    seconds = steady[-1].ended - begun
    return Speed(
        tokens_per_s=sum(unit.tokens for unit in steady) / max(seconds, 1e-9),
        slowest=min(of_units),
        fastest=max(of_units),
        start_s=start_s,
        units=len(steady),
        seconds=seconds,
    )


def run_seconds(work: Work, tokens_per_s: float, start_s: float, workers: int) -> float:
    """Returns how long a run takes: each worker starts, and has its share of the units, rounded up.

    At the end some workers have no unit while others still work.
    """
    rounds = -(-work.units // workers)
    return start_s + rounds * work.tokens / work.units / tokens_per_s if work.units else start_s


def offer(node: NodeType, work: Work, speed: Speed, workers: int, price: Fraction) -> Offer:
    """Returns what a run costs on nodes of this type, whose relative speed must be known. Nodes are paid whole."""
    assert node.relative_speed is not None
    nodes = -(-workers // node.workers)
    seconds = run_seconds(work, speed.tokens_per_s * float(node.relative_speed), speed.start_s, workers)
    return Offer(node=node, nodes=nodes, seconds=seconds, cost=nodes * float(price) * seconds / HOUR_S)


def cheapest(nodes: Sequence[NodeType], work: Work, speed: Speed, workers: int, *, spot: bool) -> Offer | None:
    """Returns the cheapest offer for so many workers; None if no node type has a speed and such a price."""
    offers = [
        offer(node, work, speed, workers, price)
        for node in nodes
        if node.relative_speed is not None and (price := node.spot_price if spot else node.price) is not None
    ]
    return min(offers, key=lambda one: (one.cost, one.seconds, one.node.name), default=None)
