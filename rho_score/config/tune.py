"""The options of `rho-score tune`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction

from rho_score.config.option import Group, metavar

_DATA = Group("Data")
_TRIED = Group("What is tried", "Training on all tokens is always tried, as the control.")
_MODEL = Group("Model and batches", "As in `rho-score train`.")
_WORKERS = Group("Workers")


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Try rules of selection in short runs, and name the best.

    Each candidate is trained for a few steps. The better half of them is trained again, from the
    start and for twice as many steps, and so on, until two are left beside the control. These are
    trained with several seeds. Every run ends with a decayed learning rate, so that their held-out
    losses can be compared. The result is a table, and the command to train with. If it stops before
    its end, run the same command again: it goes on.
    """

    model: Annotated[Positional[str], metavar("MODEL")]
    """The causal language model to start from, as `rho-score train` takes it."""
    output: Annotated[Positional[str], metavar("OUTPUT")]
    """The folder for the runs and the table, as a path or as any fsspec URL."""

    scores: Annotated[UseAppendAction[tuple[str, ...]], _DATA, metavar("SCORES")]
    """The score set of the reference model. Repeat the option as NAME=SCORES to combine several."""
    eval: Annotated[UseAppendAction[tuple[str, ...]], _DATA, metavar("NAME=CORPUS")]
    """Held-out documents: a corpus or a score set. The loss of the first set decides. Repeat the option
    for others, of which the losses are only told."""
    base: Annotated[str | None, _DATA, metavar("SCORES")] = None
    """The score set of the base model. With it, selections made beforehand are tried too: tokens,
    documents, and live selection inside these documents."""
    combine: Annotated[Literal["min", "mean"], _DATA] = "min"
    """How the losses of several references are combined."""
    text_column: Annotated[str, _DATA, metavar("COLUMN")] = "text"
    """With --eval: the column that holds a document's text."""

    minutes: Annotated[float, _TRIED, metavar("N")] = 60.0
    """How long all runs take together, about. Their lengths follow from it."""
    ratio: Annotated[tuple[float, ...], _TRIED, metavar("RATIO")] = (0.3, 0.6)
    """The ratios of tokens to try, for live selection and for selections made beforehand."""
    documents: Annotated[tuple[float, ...], _TRIED, metavar("RATIO")] = (0.3,)
    """With --base: the shares of all tokens that selections of documents keep."""
    learning_rate: Annotated[tuple[float, ...], _TRIED, metavar("RATE")] = (1e-4,)
    """The learning rates to try with every rule. The best rate of one rule need not be that of
    another."""
    seeds: Annotated[int, _TRIED, metavar("N")] = 3
    """The seeds of the last runs."""
    dry_run: Annotated[bool, _TRIED] = False
    """Check the options, print what would be tried, and stop. Nothing is written."""

    block_size: Annotated[int, _MODEL, metavar("TOKENS")] = 1024
    """The number of tokens in a row."""
    batch_tokens: Annotated[int, _MODEL, metavar("TOKENS")] = 65_536
    """The number of tokens in a step, over all workers."""
    micro_batch: Annotated[int | None, _MODEL, metavar("ROWS")] = None
    """The number of rows in one forward pass of a worker."""
    warmup: Annotated[float, _MODEL, metavar("SHARE")] = 0.1
    """The share of the steps over which the learning rate rises from 0. It then falls along a
    cosine."""
    from_scratch: Annotated[bool, _MODEL] = False
    """Begin with random weights."""
    tokenizer: Annotated[str | None, _MODEL, metavar("MODEL")] = None
    """The model whose tokenizer is used. By default, it is MODEL's own."""
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], _MODEL] = "auto"
    """The arithmetic of forward and backward passes."""
    lora_rank: Annotated[int | None, _MODEL, metavar("RANK")] = None
    """Train a LoRA adapter of this rank in place of the weights."""
    gradient_checkpointing: Annotated[bool, _MODEL] = False
    """Compute the activations of layers again in the backward pass."""

    workers: Annotated[int, _WORKERS, metavar("N")] = 1
    """How many processes train."""
    gpus_per_worker: Annotated[int | None, _WORKERS, metavar("N")] = None
    """The GPUs of each worker: 1 or 0."""
    cache: Annotated[str | None, _WORKERS, metavar("FOLDER")] = None
    """A local folder on each node for the tokens."""

    def __post_init__(self) -> None:
        for name in ("scores", "eval"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, (value,))
