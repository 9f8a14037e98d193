"""The options of every command: one frozen dataclass each; flags, `--help` and configuration files come from them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantize = Literal["int8", "int4"]
Signal = Literal["entropy", "rank"]


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Where the documents are and which columns hold what."""

    input: Annotated[Positional[str], arg(metavar="INPUT")]
    """Corpus: a folder (searched recursively), a file or a glob; a path or any fsspec URL (s3://bucket/corpus).
    Shards are .parquet, .jsonl, .jsonl.gz or .jsonl.zst."""
    text_column: str = "text"
    """Column with the document's text (string)."""
    id_column: str | None = None
    """Column with the document's id. Default: SHARD#ROW in Parquet, SHARD@BYTE in JSONL."""
    group_column: str | None = None
    """Column with the document's group (source, domain), for shares and thresholds per group."""
    unit_bytes: int = 16_000_000
    """Text bytes in one unit, the piece of work that is retried, published and resumed as a whole.
    The default is some 4 million tokens; on a CPU 500000 gives a unit every few minutes."""


@dataclass(frozen=True, kw_only=True)
class PlanConfig(CorpusConfig):
    """Say what a run would do and cost; run nothing."""

    model: str | None = None
    """Model whose tokenizer counts tokens in a sample of the corpus (id or directory). Without it: 4 bytes a token."""
    tokens_per_second: float | None = None
    """Speed of one worker, as a run on a part of the corpus printed it; the plan then tells worker-hours."""
    price_per_hour: float | None = None
    """Price of one worker-hour; with --tokens-per-second the plan tells the cost."""
    sample_documents: int = 400
    """Documents read to estimate what listings and footers do not tell (tokens; documents in JSONL)."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(CorpusConfig):
    """Score every token of a corpus with one model; write a score set."""

    output: Annotated[Positional[str], arg(metavar="OUTPUT")]
    """Score set to write: a path or any fsspec URL. Run the same command again to resume."""
    model: str
    """Causal language model: a Hugging Face id (optionally ID@REVISION) or a directory that every node sees."""
    signals: tuple[Signal, ...] = ()
    """More columns from the same pass: entropy (of the next-token distribution, nats), rank (of the true token, 0 where it
    is the most likely one)."""
    context: int | None = None
    """Tokens that a token may see, prefix included. Default: the model's maximum, at most 2048. Where it is longer than
    --batch-tokens a cache of keys and values carries it from pass to pass: up to the model's maximum nothing is cut."""
    overlap: int | None = None
    """Tokens of context that a window at least repeats from the one before it. Default: a quarter of the context."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass. auto: float16 where the device computes it (CUDA, AMX-FP16), else bfloat16 (AMX-BF16),
    else float32."""
    compile: bool = True
    """Compile the model's layers: seconds to a minute once on each node, faster from then on."""
    workers: str = "1"
    """Model workers: N, or MIN:MAX to grow and shrink with the cluster."""
    gpus_per_worker: float | None = None
    """GPUs of each worker. Default: 1 where this machine has a GPU, else 0. Give it where only the workers have GPUs.
    2 or more: the layers of one model are spread over so many GPUs of a node."""
    quantize: Quantize | None = None
    """Load the body's weights in 8 or 4 bits (bitsandbytes), for models that do not fit otherwise. --verify tells the error."""
    trust_remote_code: bool = False
    """Run the Python files that come with the model. Only for models whose code you have read."""
    cpus_per_worker: int | None = None
    """CPUs (torch threads) of each worker. Default: 2 with a GPU, else all cores of this machine."""
    batch_tokens: int | None = None
    """Tokens in one forward pass. Default: by the GPU's free memory, 2048 on a CPU. Out of memory, it is halved."""
    verify: int | None = None
    """Score so many random documents both ways, as the run would and by a plain float32 forward, print how they differ, and
    stop: nothing is written."""
    allow_quarantine: bool = False
    """Exit with 0, not 3, when documents were quarantined."""


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Select tokens or documents of a scored corpus by a global quantile; write a selection."""

    output: Annotated[Positional[str], arg(metavar="OUTPUT")]
    """Selection to write: a path or any fsspec URL. Run the same command again to resume."""
    ref: str
    """Score set of the reference model."""
    base: str | None = None
    """Score set of the base model. With it the rank is by excess loss (base - ref), without it by the reference's loss."""
    ratio: float | None = None
    """Share to keep, 0 to 1: of the scored tokens, or with --level document of the documents. Exact to one."""
    tokens: int | None = None
    """Tokens to keep (a budget). Exact for tokens; documents are taken in rank order while they fit."""
    threshold: float | None = None
    """Keep what scores at least this many nats (at most, with --keep low)."""
    keep: Literal["auto", "high", "low"] = "auto"
    """Which end to keep. auto: high for excess loss, low for the reference's loss alone."""
    level: Literal["token", "document"] = "token"
    """What is ranked: tokens, or documents by their mean score (mean excess, or mean loss)."""
    per_group: bool = False
    """Apply the ratio within each group, with a threshold of its own."""
    workers: int | None = None
    """Tasks at a time. Default: as many as the cluster has CPUs for."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write one self-contained HTML page about a score set or a selection."""

    store: Annotated[Positional[str], arg(metavar="STORE")]
    """Score set or selection: a path or any fsspec URL."""
    output: Annotated[Positional[str], arg(metavar="OUTPUT")]
    """HTML file to write: a path or any fsspec URL."""
    ref: str | None = None
    """Score set of the reference, where a selection's own note of its place no longer holds."""
    base: str | None = None
    """Score set of the base model, likewise."""
    documents: int = 12
    """Documents shown as heat maps."""
    sample_tokens: int = 2_000_000
    """Tokens read for the figures that need the tokens themselves; counts and thresholds are always exact."""
