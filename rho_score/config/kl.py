"""The options of `rho-score kl`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from rho_score.config.option import Group, metavar
from rho_score.config.score import Precision

_DIVERGENCE = Group("Divergence")
_OUTPUT = Group("Output and workers")


@dataclass(frozen=True, kw_only=True)
class KLConfig:
    """Make a score set of how far two models' predictions are apart.

    The loss of a token is a lower bound of the divergence KL(BASE || REF) of the two distributions
    that it is drawn from, in nats. It is computed from the likeliest tokens that both score sets
    hold (`rho-score score --signals top-k`); all others count as one. If a run stops before its
    end, run the same command again to resume it.
    """

    base: Annotated[Positional[str], metavar("BASE")]
    """The score set of one model, with the signal top-k. The result has its documents and units."""
    ref: Annotated[Positional[str], metavar("REF")]
    """The score set of the other model, of the same corpus, tokenizer and units, with the signal
    top-k."""
    output: Annotated[Positional[str], metavar("OUTPUT")]
    """The score set to write, as a path or as any fsspec URL."""

    reverse: Annotated[bool, _DIVERGENCE] = False
    """Compute KL(REF || BASE) instead."""

    precision: Annotated[Precision | None, _OUTPUT] = None
    """The precision in which divergences are stored and ranked. By default, it is that of BASE."""
    workers: Annotated[int | None, _OUTPUT, metavar("N")] = None
    """How many tasks run at the same time. By default, as many as the cluster has CPUs for."""
