"""The options of `rho-score score`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional

from rho_score.config.corpus import CorpusConfig
from rho_score.config.option import Group, metavar

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantize = Literal["int8", "int4", "fp8"]
Precision = Literal["float16", "float32"]
Signal = Literal["entropy", "rank", "top-k"]
ServerKind = Literal["vllm", "sglang", "openai"]

_MODEL = Group("Model")
_SCORES = Group("Scores")
_WORKERS = Group("Workers")
_SERVER = Group(
    "Server",
    "A model behind a server is asked for its losses. --model then names the tokenizer alone. An API key is read from the "
    "environment variable RHO_SCORE_SERVER_KEY.",
)
_MONEY = Group("Money", "With a price, what is spent is counted and printed.")
_CHECKS = Group("Checks and failures")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(CorpusConfig):
    """Score every token of a corpus with one language model.

    The result is a score set: Parquet files with the loss of every token, in nats. If a run stops
    before its end, run the same command again to resume it. A document that cannot be scored is
    quarantined with its reason, and the run then ends with exit code 3.
    """

    output: Annotated[Positional[str], metavar("OUTPUT")]
    """The score set to write, as a path or as any fsspec URL."""

    model: Annotated[str, _MODEL, metavar("MODEL")]
    """The causal language model: a Hugging Face id, optionally with a revision (ID@REVISION), or a
    directory that every node can read."""
    trust_remote_code: Annotated[bool, _MODEL] = False
    """Run the Python files that come with the model. Use this only for models whose code you have
    read."""
    dtype: Annotated[Dtype, _MODEL] = "auto"
    """The arithmetic of the forward pass. auto is float16 where the device computes it (CUDA,
    AMX-FP16), else bfloat16 (AMX-BF16), else float32."""
    quantize: Annotated[Quantize | None, _MODEL] = None
    """Load the weights of the model's body in fewer bits. int8 and int4 (bitsandbytes) are for models
    that do not fit otherwise. fp8 (torchao) also multiplies in FP8, on GPUs that have it. Use
    --verify to see how far that moves the losses."""
    compile: Annotated[bool, _MODEL] = True
    """Compile the model's layers. This takes up to a minute once on each node, and scoring is
    faster from then on."""

    signals: Annotated[tuple[Signal, ...], _SCORES] = ()
    """Write more columns from the same forward pass. entropy is the entropy of the next-token
    distribution in nats; rank is the number of tokens that the model found more likely than the
    true one; top-k are the ids and log-probabilities of the likeliest tokens."""
    top_k: Annotated[int | None, _SCORES, metavar("K")] = None
    """With --signals top-k: how many of the likeliest tokens are written, 8 by default. Each takes 4
    to 5 bytes of storage."""
    context: Annotated[int | None, _SCORES, metavar("TOKENS")] = None
    """The number of tokens that a prediction may see, including the prefix. By default, it is the
    model's maximum but at most 2048. A context longer than --batch-tokens is computed in several
    passes with a key-value cache, so documents need not be cut below the model's maximum."""
    overlap: Annotated[int | None, _SCORES, metavar("TOKENS")] = None
    """A document longer than the context is cut into windows. Each window repeats at least this
    many tokens of the window before it. The default is a quarter of the context."""
    prefix: Annotated[str, _SCORES, metavar("{auto,none,ID}")] = "auto"
    """What the first token of a document is conditioned on. auto takes the tokenizer's BOS token,
    else its EOS token, else one that the model's config.json names. none takes nothing, so the
    first token has no loss. ID is the id of a token."""
    hide_context: Annotated[bool, _SCORES] = False
    """With prompts, prefixes, chats or pairs: do not show the context to the model, so that the
    tokens that count are all that it reads. `rho-score select` with such a set as --base and one
    that saw the context as --ref ranks tokens by what the context tells about them."""
    precision: Annotated[Precision | None, _SCORES] = None
    """The precision in which losses are stored and ranked. float16, the default, takes about 1.8
    bytes per token, and float32 nearly twice that. Pairs are stored as float32 by default, because
    the losses of a response are summed."""
    reuse: Annotated[str | None, _SCORES, metavar("SCORES")] = None
    """A finished score set of the same model and the same options, such as that of the corpus before
    it grew. Documents with the same tokens take their losses from it, wherever they are, and do not
    go through the model."""

    workers: Annotated[str, _WORKERS, metavar("N|MIN:MAX")] = "1"
    """How many workers load the model. MIN:MAX lets their number grow and shrink with the
    cluster."""
    gpus_per_worker: Annotated[float | None, _WORKERS, metavar("N")] = None
    """The number of GPUs for each worker. The default is 1 if this machine has a GPU and 0 if it
    has none, so set it if only the workers have GPUs. With 2 or more, the layers of one model are
    spread over that many GPUs of a node."""
    cpus_per_worker: Annotated[int | None, _WORKERS, metavar("N")] = None
    """The number of CPUs (torch threads) for each worker. The default is 2 with a GPU. Without a
    GPU it is all cores of this machine or, on a cluster, as many as fit its nodes and leave one CPU
    for reading."""
    batch_tokens: Annotated[int | None, _WORKERS, metavar("TOKENS")] = None
    """The number of tokens in one forward pass. By default, it follows the GPU's free memory, and
    it is 2048 on a CPU. It is halved when memory runs out."""
    unit_timeout: Annotated[float | None, _WORKERS, metavar("SECONDS")] = None
    """How long a worker may work on one unit. A worker that takes longer is ended, and the document
    that it hangs on is found and quarantined. The default is four hours with a GPU and a day
    without."""

    server: Annotated[str | None, _SERVER, metavar("URL")] = None
    """The address of a server that has the model, such as http://127.0.0.1:8000. No worker loads
    the model then, and none needs a GPU."""
    server_kind: Annotated[ServerKind, _SERVER] = "vllm"
    """What the server is: vLLM, SGLang, or another one with OpenAI's completions format, which must
    be able to echo the log-probabilities of a text."""
    server_model: Annotated[str | None, _SERVER, metavar("NAME")] = None
    """The name that the server has for the model. It may be left out if the server has one
    model."""
    server_requests: Annotated[int, _SERVER, metavar("N")] = 32
    """How many requests of each worker are under way at the same time."""

    price_per_hour: Annotated[float | None, _MONEY, metavar("PRICE")] = None
    """The price of one worker-hour. A worker counts from the start of its process to its end, so
    loading the model and waiting count too."""
    price_per_million_tokens: Annotated[float | None, _MONEY, metavar("PRICE")] = None
    """With --server: the price of a million tokens that are sent."""
    spend_at_most: Annotated[float | None, _MONEY, metavar("MONEY")] = None
    """Stop before more than this is spent, what earlier runs of the same output spent included.
    Needs a price. The same command with more money goes on from there."""

    verify: Annotated[int | None, _CHECKS, metavar("N")] = None
    """Score N random documents both as the run would and by a plain float32 forward pass, print how
    far the losses differ, and stop. Nothing is written."""
    only_quarantined: Annotated[bool, _CHECKS] = False
    """Score only the units of a finished run that have quarantined documents. Use this after you
    have repaired what made them fail."""
    allow_quarantine: Annotated[bool, _CHECKS] = False
    """Exit with code 0 instead of 3 if documents were quarantined."""
