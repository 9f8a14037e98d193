"""The options of `rho-score prior`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from rho_score.config.option import Group, metavar
from rho_score.config.score import Precision

_COUNTS = Group("Counts")
_OUTPUT = Group("Output and workers")


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Make a score set of how rare each token is in a corpus.

    The loss of a token is the negative logarithm of its share of all tokens, in nats, whatever
    stands around it: the loss of a model that knows frequencies alone. It can be the reference or
    the base of a selection. If a run stops before its end, run the same command again to resume it.
    """

    scores: Annotated[Positional[str], metavar("SCORES")]
    """The finished score set whose documents and tokens the result has. A token that has no loss
    there, such as a prompt, has none in the result and is not counted."""
    output: Annotated[Positional[str], metavar("OUTPUT")]
    """The score set to write, as a path or as any fsspec URL."""

    counted_in: Annotated[str | None, _COUNTS, metavar("SCORES")] = None
    """A score set of another corpus with the same tokenizer, whose tokens are counted instead, such
    as one of curated text."""
    alpha: Annotated[float, _COUNTS, metavar("N")] = 1.0
    """What is added to the count of each word of the tokenizer, so that a word that never occurs
    has a finite loss. With 0 the shares are those that were counted."""

    precision: Annotated[Precision | None, _OUTPUT] = None
    """The precision in which losses are stored and ranked. By default, it is that of the score
    set."""
    workers: Annotated[int | None, _OUTPUT, metavar("N")] = None
    """How many tasks run at the same time. By default, as many as the cluster has CPUs for."""
