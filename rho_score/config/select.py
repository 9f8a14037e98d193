"""The options of `rho-score select`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction

from rho_score.config.option import Group, metavar

_SCORES = Group("Score sets")
_AMOUNT = Group(
    "How much is kept",
    "Give exactly one of --ratio, --tokens and --threshold, or give each group its own amount with --quota.",
)
_RANKED = Group("What is ranked")
_GROUPS = Group("Groups", "A document's group comes from the --group-column of `rho-score score`.")
_REFERENCES = Group("Several references")
_SAMPLING = Group("Sampling")
_OUTPUT = Group("Output and workers")


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Select the tokens or documents that score best.

    The ranking is exact and runs over the whole corpus. The result is a selection: Parquet files
    with a mask over the tokens. It is made from score sets alone, without a model. Ties at the
    threshold go to the first in corpus order: by the shard's name, then by the place in the shard
    and in the document. If a run stops before its end, run the same command again to resume it.
    """

    output: Annotated[Positional[str], metavar("OUTPUT")]
    """The selection to write, as a path or as any fsspec URL."""

    ref: Annotated[UseAppendAction[tuple[str, ...]], _SCORES, metavar("[NAME=]SCORES")]
    """The score set of the reference model. Repeat the option as NAME=SCORES to give several
    references."""
    base: Annotated[str | None, _SCORES, metavar("SCORES")] = None
    """The score set of the base model. With it, tokens are ranked by excess loss (base minus
    reference). Without it, they are ranked by the reference's loss."""
    align: Annotated[Literal["tokens", "bytes"], _SCORES] = "tokens"
    """How losses are compared. With bytes, references may have other tokenizers than the base
    model: each loss is spread over the UTF-8 bytes of its token and summed over the base model's
    tokens."""
    within: Annotated[str | None, _SCORES, metavar("SELECTION")] = None
    """A selection of the same score sets. Only documents of which it keeps a token are ranked: with
    a selection of documents, this selects documents and then tokens inside them."""
    allow_unfinished: Annotated[bool, _SCORES] = False
    """Accept score sets that are still being written, and use the units that all of them have
    published. The manifest records how many. The same command keeps to these units when it is run
    again."""

    ratio: Annotated[float | None, _AMOUNT, metavar("RATIO")] = None
    """The share to keep, from 0 to 1, of the scored tokens or, with --level document, of the
    documents. The number that is kept is exact."""
    tokens: Annotated[int | None, _AMOUNT, metavar("N")] = None
    """The number of tokens to keep. With --level document, documents are taken in rank order up to
    the first that does not fit. With --combine union, each reference keeps this many."""
    threshold: Annotated[float | None, _AMOUNT, metavar("NATS")] = None
    """Keep everything that scores at least this many nats or, with --keep low, at most this
    many."""
    keep: Annotated[Literal["auto", "high", "low"], _AMOUNT] = "auto"
    """Which end of the ranking is kept. auto is high for excess loss, and low for the reference's
    loss alone. For imported values that are not in nats, say high or low."""
    drop_top: Annotated[float, _AMOUNT, metavar("RATIO")] = 0.0
    """Leave out this share at the kept end, where the noisiest tokens are. --ratio and --tokens
    then count from there on."""

    level: Annotated[Literal["token", "document"], _RANKED] = "token"
    """Rank single tokens, or whole documents by their --document-score."""
    document_score: Annotated[Literal["mean", "per-byte", "kept-share"], _RANKED] = "mean"
    """How a document is scored. mean is the mean score of its tokens, per-byte is the sum of their
    scores divided by the document's bytes, and kept-share is the share of its tokens that are among
    the best --token-ratio of all tokens."""
    token_ratio: Annotated[float | None, _RANKED, metavar("RATIO")] = None
    """With --document-score kept-share: the share of all tokens that counts as kept. Tokens that
    tie with the last of them count too."""
    scope: Annotated[Literal["corpus", "document", "batch"], _RANKED] = "corpus"
    """What the ratio is a share of: the whole corpus (or group), each document, or each batch of
    --batch-tokens as in the Rho-1 paper."""
    batch_tokens: Annotated[int | None, _RANKED, metavar("N")] = None
    """With --scope batch: the number of consecutive tokens of a unit that are ranked among
    themselves."""

    per_group: Annotated[bool, _GROUPS] = False
    """Rank each group by itself, and apply the ratio or the threshold within each group."""
    quota: Annotated[UseAppendAction[tuple[str, ...]], _GROUPS, metavar("GROUP=AMOUNT")] = ()
    """How much one group keeps: a share with a decimal point (code=0.8) or a whole number of tokens
    (web=5000000000). Repeat the option for each group; the group * is every group that is not
    named."""

    combine: Annotated[Literal["min", "mean", "union"], _REFERENCES] = "min"
    """How several references are combined. min ranks a token by the lowest of their losses, and
    mean by the mean of their losses. With union, each reference ranks the tokens and keeps its own
    share, and a token is kept if any reference keeps it."""
    share: Annotated[UseAppendAction[tuple[str, ...]], _REFERENCES, metavar("NAME=RATIO")] = ()
    """With --combine union: the share that one reference keeps. Repeat the option for each
    reference; those that are not named keep --ratio."""
    expert_masks: Annotated[bool, _REFERENCES] = False
    """With --combine union: also write the mask of each reference, in a column mask_NAME."""

    sample: Annotated[Literal["gumbel", "random"] | None, _SAMPLING] = None
    """Draw at random instead of taking the best. gumbel draws without replacement, where a score s
    has the weight exp(s / temperature). random draws evenly, as a control of the same size."""
    temperature: Annotated[float, _SAMPLING, metavar("NATS")] = 1.0
    """The temperature of --sample gumbel. Near 0 the best are drawn; a large value draws almost
    evenly. It is also the scale of --weights sigmoid and linear."""
    seed: Annotated[int, _SAMPLING, metavar("N")] = 0
    """The seed of --sample. The same seed draws the same tokens, whatever the units and workers
    are."""

    weights: Annotated[Literal["linear", "sigmoid", "rank"] | None, _OUTPUT] = None
    """Also write a weight from 0 to 1 for each token, in a column weight. sigmoid and linear grow
    with the distance of a token's score from the cut, in units of --temperature, and are 1/2 at the
    cut. rank is the share of tokens that score worse. Documents weigh what their scores do."""
    min_run: Annotated[int, _OUTPUT, metavar("N")] = 1
    """Remove runs of fewer than N kept tokens from the mask; 2 removes kept tokens that stand
    alone. Fewer tokens than you asked for are then kept."""
    dry_run: Annotated[bool, _OUTPUT] = False
    """Print what would be kept, and stop. Nothing is written."""
    workers: Annotated[int | None, _OUTPUT, metavar("N")] = None
    """How many tasks run at the same time. By default, as many as the cluster has CPUs for."""

    def __post_init__(self) -> None:
        for name in ("ref", "share", "quota"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, (value,))
