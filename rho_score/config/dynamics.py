"""The options of `rho-score dynamics`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional

from rho_score.config.option import Group, metavar

_CHECKPOINTS = Group("Checkpoints")
_CATEGORIES = Group("Categories")
_OUTPUT = Group("Output and workers")


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """Sort tokens by how their loss changed during training.

    A line is fitted to the losses of each token at two or more checkpoints of one model. The token
    is H-L (learnt) if the line falls and L-H if it rises; otherwise its loss stayed high (H-H) or
    low (L-L). The result is a selection whose mask keeps the categories that you name. If a run
    stops before its end, run the same command again to resume it.
    """

    output: Annotated[Positional[str], metavar("OUTPUT")]
    """The selection to write, as a path or as any fsspec URL."""
    scores: Annotated[tuple[str, ...], _CHECKPOINTS, metavar("SCORES")]
    """The score sets of one model at two or more checkpoints, the earliest first."""
    steps: Annotated[tuple[float, ...], _CHECKPOINTS, metavar("STEP")] = ()
    """When the checkpoints were made, one number for each, in training steps or in tokens. By
    default, they are equally spaced."""
    rise: Annotated[float, _CATEGORIES, metavar("NATS")] = 0.2
    """A token is L-H if its fitted loss rises by more than this from the first checkpoint to the
    last."""
    fall: Annotated[float, _CATEGORIES, metavar("NATS")] = 0.2
    """A token is H-L if its fitted loss falls by more than this from the first checkpoint to the
    last."""
    keep: Annotated[tuple[Literal["H-H", "L-H", "H-L", "L-L"], ...], _CATEGORIES] = ("H-L",)
    """The categories that the mask keeps."""
    plot: Annotated[str | None, _OUTPUT, metavar("FILE")] = None
    """Write the share of each category as a figure to this path or URL. Its name ends with .svg,
    .png or .pdf."""
    workers: Annotated[int | None, _OUTPUT, metavar("N")] = None
    """How many tasks run at the same time. By default, as many as the cluster has CPUs for."""
