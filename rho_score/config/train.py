"""The options of `rho-score train`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, UseAppendAction

from rho_score.config.corpus import CorpusConfig
from rho_score.config.option import Group, metavar

_DATA = Group("Data", "Give exactly one of --text, --scores and --selection.")
_RULE = Group(
    "Which tokens", "With --scores, give one of --ratio and --threshold; without both, every token is trained on."
)
_LENGTH = Group("How long", "Give exactly one of --steps, --epochs and --tokens.")
_OPTIMIZER = Group("Optimizer")
_MODEL = Group("Model")
_CHECKS = Group("Evaluation and checkpoints")
_WORKERS = Group("Workers")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a model on selected tokens, or on plain text.

    With --scores, each batch is ranked while the model trains, as in the Rho-1 paper: the excess
    loss of a token is its loss under the model in training minus its stored reference loss, and the
    loss is the mean over the best --ratio of the batch. With --selection, the tokens were chosen
    beforehand. With --text, every token is trained on: this makes reference models and controls.

    If a run stops before its end, run the same command again: it goes on from the last checkpoint.
    The order of the data depends on --seed and the step alone, not on the number of workers.
    """

    model: Annotated[Positional[str], metavar("MODEL")]
    """The causal language model to start from: a directory, a Hugging Face id (ID@REVISION), or
    with --from-scratch a directory or a config.json that describes it."""
    output: Annotated[Positional[str], metavar("OUTPUT")]
    """The training run to write, as a path or as any fsspec URL. Its folder `model` is a model that
    transformers and `rho-score score --model` open."""

    text: Annotated[str | None, _DATA, metavar("CORPUS")] = None
    """A corpus as `rho-score score` takes it. Every token is trained on, and so is the EOS token at
    the end of each document."""
    scores: Annotated[UseAppendAction[tuple[str, ...]], _DATA, metavar("[NAME=]SCORES")] = ()
    """The score set of the reference model. Repeat the option as NAME=SCORES to combine several
    references."""
    selection: Annotated[str | None, _DATA, metavar("SELECTION")] = None
    """A selection. The tokens of its mask are trained on, the others are context."""
    weighted: Annotated[bool, _DATA] = False
    """With --selection: every token with a weight above 0 is trained on, and the loss is the mean of
    the tokens' losses by the weights of `rho-score select --weights`."""
    within: Annotated[str | None, _DATA, metavar("SELECTION")] = None
    """With --scores or --selection: another selection of the same score sets. Only documents of
    which it keeps a token are read."""
    combine: Annotated[Literal["min", "mean"], _DATA] = "min"
    """How the losses of several references are combined."""
    text_column: Annotated[str, _DATA, metavar("COLUMN")] = "text"
    """With --text and --eval: the column that holds a document's text."""
    group_column: Annotated[str | None, _DATA, metavar("COLUMN")] = None
    """With --eval: the column that holds a document's group. Losses are told for each group."""
    train_eos: Annotated[bool, _DATA] = False
    """With --scores or --selection: also train on the token that ends each document, although it
    has no score. With --scores it counts as selected only if there is no rule."""

    ratio: Annotated[float | None, _RULE, metavar("RATIO")] = None
    """The share of the tokens with a reference loss to train on, from 0 to 1."""
    threshold: Annotated[float | None, _RULE, metavar("NATS")] = None
    """Train on all tokens with at least this excess loss."""
    scope: Annotated[Literal["micro", "ema"], _RULE] = "micro"
    """What a ratio is a share of. micro ranks the tokens of one micro-batch on all workers, and
    keeps the ratio exactly. ema takes the tokens above a moving average of the thresholds of
    earlier micro-batches, for micro-batches of few tokens."""
    pick: Annotated[Literal["excess", "random", "high-loss", "low-reference"], _RULE] = "excess"
    """What tokens are ranked by. The others than excess are controls of the same size: random
    tokens, those with the highest loss, and those with the lowest reference loss."""

    steps: Annotated[int | None, _LENGTH, metavar("N")] = None
    """The number of optimizer steps."""
    epochs: Annotated[float | None, _LENGTH, metavar("N")] = None
    """How often the data is read."""
    tokens: Annotated[int | None, _LENGTH, metavar("N")] = None
    """The number of tokens to read, whether they are trained on or not."""
    block_size: Annotated[int, _LENGTH, metavar("TOKENS")] = 1024
    """The number of tokens in a row. Documents are packed into rows and do not see each other."""
    batch_tokens: Annotated[int, _LENGTH, metavar("TOKENS")] = 65_536
    """The number of tokens in a step, over all workers. It is rounded to whole rows."""
    micro_batch: Annotated[int | None, _LENGTH, metavar("ROWS")] = None
    """The number of rows in one forward pass of a worker. By default, as many as make 8,192 tokens
    with a GPU and 4,096 without."""

    learning_rate: Annotated[float, _OPTIMIZER, metavar("RATE")] = 1e-4
    """The learning rate after the warm-up."""
    schedule: Annotated[Literal["cosine", "constant", "wsd"], _OPTIMIZER] = "cosine"
    """How the learning rate goes on after the warm-up: down to 0 along a cosine, constant, or
    constant and then down to 0 over the last --decay of the steps (warmup-stable-decay)."""
    warmup: Annotated[float, _OPTIMIZER, metavar("SHARE")] = 0.05
    """The share of the steps over which the learning rate rises from 0."""
    decay: Annotated[float, _OPTIMIZER, metavar("SHARE")] = 0.2
    """With --schedule wsd: the share of the steps over which the learning rate falls."""
    weight_decay: Annotated[float, _OPTIMIZER, metavar("RATE")] = 0.1
    """AdamW's weight decay. Biases and norms are not decayed."""
    beta2: Annotated[float, _OPTIMIZER, metavar("BETA")] = 0.95
    """AdamW's second beta."""
    max_grad_norm: Annotated[float, _OPTIMIZER, metavar("NORM")] = 1.0
    """Gradients are scaled down to this norm; 0 leaves them as they are."""
    seed: Annotated[int, _OPTIMIZER, metavar("N")] = 0
    """The seed of the data's order, of random weights and of dropout."""

    from_scratch: Annotated[bool, _MODEL] = False
    """Begin with random weights. MODEL then gives the configuration and --tokenizer the tokens."""
    tokenizer: Annotated[str | None, _MODEL, metavar("MODEL")] = None
    """The model whose tokenizer is used. By default, it is MODEL's own."""
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], _MODEL] = "auto"
    """The arithmetic of forward and backward passes; weights and optimizer stay in float32. auto is
    bfloat16 with a GPU, else float32."""
    attention: Annotated[Literal["sdpa", "eager", "flash_attention_2"], _MODEL] = "sdpa"
    """The implementation of attention in transformers."""
    gradient_checkpointing: Annotated[bool, _MODEL] = False
    """Compute the activations of layers again in the backward pass. It takes more time and much less
    memory."""
    lora_rank: Annotated[int | None, _MODEL, metavar("RANK")] = None
    """Train a LoRA adapter of this rank on all linear layers (with `peft`) in place of the weights."""
    merge: Annotated[bool, _MODEL] = False
    """With --lora-rank: merge the adapter into the model at the end, so that `model` is a whole
    model and not an adapter."""

    eval: Annotated[UseAppendAction[tuple[str, ...]], _CHECKS, metavar("NAME=CORPUS|SCORES")] = ()
    """Held-out documents: a corpus or a score set. Their loss is computed before the first step,
    every --eval-every steps, and at the end. Repeat the option for several."""
    eval_every: Annotated[int | None, _CHECKS, metavar("STEPS")] = None
    """How many steps lie between two evaluations. By default, a tenth of the run."""
    save_every: Annotated[int | None, _CHECKS, metavar("STEPS")] = None
    """How many steps lie between two checkpoints. By default it is a tenth of the run, but at least
    100 and at most 1,000 steps."""
    keep: Annotated[int, _CHECKS, metavar("N")] = 2
    """How many checkpoints are kept while the run goes on. They are removed at its end. 0 keeps all
    of them for good, so that their losses can be compared with `rho-score dynamics`."""
    log_every: Annotated[int, _CHECKS, metavar("STEPS")] = 1
    """How many steps a row of the log covers."""
    dry_run: Annotated[bool, _CHECKS] = False
    """Check everything, print what would be trained, and stop. Nothing is written but the local
    cache of tokens."""

    workers: Annotated[int, _WORKERS, metavar("N")] = 1
    """How many processes train. One process without a cluster runs in this one; several run as Ray
    actors."""
    gpus_per_worker: Annotated[int | None, _WORKERS, metavar("N")] = None
    """The GPUs of each worker: 1 or 0. The default is 1 if this machine has a GPU, so set it if only
    the workers have GPUs."""
    cpus_per_worker: Annotated[int, _WORKERS, metavar("N")] = 1
    """The CPUs of each worker that Ray reserves."""
    fsdp: Annotated[bool, _WORKERS] = False
    """Shard weights, gradients and optimizer over the workers (FSDP2) in place of a copy on each."""
    max_failures: Annotated[int, _WORKERS, metavar("N")] = 8
    """How often the run goes on from the last checkpoint after workers died, before it ends."""
    cache: Annotated[str | None, _WORKERS, metavar("FOLDER")] = None
    """A local folder on each node for the tokens, which are mapped into memory. By default,
    rho-score/blocks in the user's cache."""

    def __post_init__(self) -> None:
        for name in ("scores", "eval"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, (value,))


@dataclass(frozen=True, kw_only=True)
class TextConfig(CorpusConfig):
    """The text of a training run, as a corpus that is planned and read like any other."""

    on_token_files: ClassVar[str] = (
        "are no text: score them with `rho-score score --token-files`, and give the score set as --scores or --eval"
    )
