"""The options of every command: one frozen dataclass each; flags, `--help` and configuration files come from them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantize = Literal["int8", "int4"]
Precision = Literal["float16", "float32"]
Signal = Literal["entropy", "rank"]


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Where the documents are and which columns hold what."""

    input: Annotated[Positional[str], arg(metavar="INPUT")]
    """Corpus: a folder (searched recursively), a file or a glob; a path or any fsspec URL (s3://bucket/corpus).
    Shards are .parquet, and JSON lines: .json, .jsonl or .ndjson, plain or with .gz, .zst, .bz2 or .xz behind it."""
    text_column: str = "text"
    """Column with the document's text (string). A dot goes into structs and JSON objects (body.text)."""
    id_column: str | None = None
    """Column with the document's id, of any scalar type; meta.id goes into structs. Several columns, or folders named
    KEY=VALUE, are joined by / (lang,id). Default: SHARD#ROW in Parquet, SHARD@BYTE in JSON lines."""
    group_column: str | None = None
    """Column with the document's group (source, domain), for shares and thresholds per group; meta.source goes into
    structs. Where the file has none, a folder named KEY=VALUE tells it (lang=en/)."""
    unit_bytes: int = 16_000_000
    """Text bytes in one unit, the piece of work that is retried, published and resumed as a whole.
    The default is some 4 million tokens; on a CPU 500000 gives a unit every few minutes."""


@dataclass(frozen=True, kw_only=True)
class PlanConfig(CorpusConfig):
    """Say what a run would do and cost; run nothing."""

    model: str | None = None
    """Model whose tokenizer counts tokens in a sample of the corpus (id or directory). Without it: 4 bytes a token."""
    trust_remote_code: bool = False
    """Run the Python files that come with the tokenizer. Only for models whose code you have read."""
    tokens_per_second: float | None = None
    """Speed of one worker, as a run on a part of the corpus printed it; the plan then tells worker-hours."""
    price_per_hour: float | None = None
    """Price of one worker-hour; with --tokens-per-second the plan tells the cost."""
    sample_documents: int = 400
    """Documents that are tokenized. Where the corpus has no more of them, its tokens are exact."""


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
    prefix: str = "auto"
    """What the first token of a document is conditioned on. auto: the tokenizer's BOS, else its EOS, else those that the
    model's config.json names. none: nothing, so that the first token has no loss. Or the id of a token."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass. auto: float16 where the device computes it (CUDA, AMX-FP16), else bfloat16 (AMX-BF16),
    else float32."""
    precision: Precision = "float16"
    """Precision that losses are stored and ranked with: float16 values take 1.8 bytes a token, float32 nearly twice that."""
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
    """CPUs (torch threads) of each worker. Default: 2 with a GPU; else all cores of this machine, or, on a
    cluster, as many as fit its nodes and leave one CPU for reading."""
    batch_tokens: int | None = None
    """Tokens in one forward pass. Default: by the GPU's free memory, 2048 on a CPU. Out of memory, it is halved."""
    verify: int | None = None
    """Score so many random documents both ways, as the run would and by a plain float32 forward, print how they differ, and
    stop: nothing is written."""
    unit_timeout: float | None = None
    """Seconds that a worker may have a unit in hand. One that hangs is ended, and the document that does it is looked for.
    Default: four hours with a GPU, a day without."""
    only_quarantined: bool = False
    """Score the units that have quarantined documents once more, whole, and nothing else: after what failed was mended."""
    allow_quarantine: bool = False
    """Exit with 0, not 3, when documents were quarantined."""


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Select tokens or documents of a scored corpus by a global quantile; write a selection."""

    output: Annotated[Positional[str], arg(metavar="OUTPUT")]
    """Selection to write: a path or any fsspec URL. Run the same command again to resume."""
    ref: UseAppendAction[tuple[str, ...]]
    """Score set of the reference model. Repeat it as NAME=SCORES for several references (experts)."""
    base: str | None = None
    """Score set of the base model. With it the rank is by excess loss (base - ref), without it by the reference's loss."""
    combine: Literal["min", "mean", "union"] = "min"
    """Several references: the lowest of their losses for each token, their mean, or each ranks for itself and keeps its own
    share, and a token that any of them keeps is kept (union)."""
    share: UseAppendAction[tuple[str, ...]] = ()
    """Union: NAME=RATIO, the share that one reference keeps; repeat it. The others keep --ratio."""
    expert_masks: bool = False
    """Union: write the mask of each reference too, in a column mask_NAME."""
    align: Literal["tokens", "bytes"] = "tokens"
    """bytes: references may have other tokenizers than the base model; losses are compared over the UTF-8 bytes of its
    tokens."""

    ratio: float | None = None
    """Share to keep, 0 to 1: of the scored tokens, or with --level document of the documents. Exact to one."""
    tokens: int | None = None
    """Tokens to keep (a budget). Exact for tokens; documents are taken in rank order while they fit. Union: of each reference."""
    threshold: float | None = None
    """Keep what scores at least this many nats (at most, with --keep low)."""
    keep: Literal["auto", "high", "low"] = "auto"
    """Which end to keep. auto: high for excess loss, low for the reference's loss alone."""
    drop_top: float = 0.0
    """Leave out this share at the kept end, the noisiest; --ratio and --tokens count what comes after it (a band)."""

    level: Literal["token", "document"] = "token"
    """What is ranked: tokens, or documents by --document-score."""
    document_score: Literal["mean", "per-byte", "kept-share"] = "mean"
    """What documents are ranked by: the mean score of their tokens, the sum of the scores over the document's bytes, or the
    share of their tokens among the best --token-ratio of all tokens."""
    token_ratio: float | None = None
    """For --document-score kept-share: the share of all tokens that counts as kept (with all that tie at the last of them)."""

    per_group: bool = False
    """Apply the ratio or the threshold within each group, with a cut of its own."""
    quota: UseAppendAction[tuple[str, ...]] = ()
    """GROUP=SHARE (with a decimal point: 0.3) or GROUP=TOKENS (a whole number), instead of a ratio; repeat it. GROUP * is
    every group that is not named."""
    scope: Literal["corpus", "document", "batch"] = "corpus"
    """What the ratio is of: the whole corpus (or group), each document, or each batch of --batch-tokens as in the paper."""
    batch_tokens: int | None = None
    """For --scope batch: so many consecutive tokens of a unit are ranked among themselves."""

    sample: Literal["gumbel", "random"] | None = None
    """gumbel: draw without replacement, a score s with weight exp(s / temperature). random: draw evenly, a control of the
    same size."""
    temperature: float = 1.0
    """Of --sample gumbel, nats: near 0 the best, large values even."""
    seed: int = 0
    """Of --sample: the same seed draws the same tokens, whatever the units or workers."""
    min_run: int = 1
    """Take shorter runs of kept tokens out of the mask (2: no islands of one token). Fewer tokens than asked for are left."""

    allow_unfinished: bool = False
    """Take score sets that are still being written, as far as all of them are published; the manifest says how far that is.
    Run again, the selection keeps the units that it began with."""
    dry_run: bool = False
    """Print what would be kept and stop: nothing is written."""
    workers: int | None = None
    """Tasks at a time. Default: as many as the cluster has CPUs for."""

    def __post_init__(self) -> None:
        for name in ("ref", "share", "quota"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, (value,))


@dataclass(frozen=True, kw_only=True)
class CurveConfig:
    """Print what every ratio, budget or threshold would keep of a selection's ranking, from its histogram alone.

    It is the whole ranking that is read: one cut for all groups, and no --drop-top. Scores in float32 and samples were counted
    in detail near the selection's own cut only; elsewhere figures are to a bin of about 1 % in the score.
    """

    selection: Annotated[Positional[str], arg(metavar="SELECTION")]
    """Selection: a path or any fsspec URL."""
    ratio: tuple[float, ...] = ()
    """Ratios to tell about. Default, where nothing is asked for: 0.01 to 0.99 in steps."""
    tokens: tuple[int, ...] = ()
    """Budgets to tell about, tokens."""
    threshold: tuple[float, ...] = ()
    """Thresholds to tell about, nats."""
    expert: str | None = None
    """Reference of a union whose ranking is meant."""
    plot: str | None = None
    """Write the curves as a figure (.svg, .png or .pdf): a path or any fsspec URL."""
    csv: str | None = None
    """Write every point of the curves (group, threshold, ratio, items, tokens) as CSV: a path or any fsspec URL.
    A group that a spreadsheet would run as a formula has a ' in front."""


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """Sort every token by how its loss went over two or more checkpoints; write a selection."""

    output: Annotated[Positional[str], arg(metavar="OUTPUT")]
    """Selection to write: a path or any fsspec URL. Run the same command again to resume."""
    scores: tuple[str, ...]
    """Score sets of one model at two or more checkpoints, the earliest first."""
    steps: tuple[float, ...] = ()
    """Where the checkpoints are in training (steps or tokens), for unequal distances. Default: equally spaced."""
    rise: float = 0.2
    """L→H: the fitted loss rose by more than so many nats from the first checkpoint to the last."""
    fall: float = 0.2
    """H→L: it fell by more than so many nats."""
    keep: tuple[Literal["H-H", "L-H", "H-L", "L-L"], ...] = ("H-L",)
    """Categories that the mask keeps."""
    plot: str | None = None
    """Write the shares of the categories as a figure (.svg, .png or .pdf): a path or any fsspec URL."""
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


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a selection in a form that trainers read."""

    selection: Annotated[Positional[str], arg(metavar="SELECTION")]
    """Selection: a path or any fsspec URL."""
    output: Annotated[Positional[str], arg(metavar="OUTPUT")]
    """Export to write: a path or any fsspec URL. Run the same command again to resume."""
    format: Literal["labels", "bin", "megatron", "parquet", "jsonl"]
    """labels: Parquet with input_ids and labels (-100: not trained on), for Hugging Face's Trainer. bin: nanoGPT's .bin with
    a .mask. megatron: Megatron-LM's indexed dataset with one of the mask. parquet, jsonl: the kept documents, whole, with
    all their own columns (--level document)."""
    block_size: int | None = None
    """For labels: pack the documents into blocks of exactly so many tokens. Default: a row a document."""
    order: Literal["corpus", "easy-first", "hard-first"] = "corpus"
    """Order of the documents: as in the corpus, or by difficulty, the mean score of a document's tokens (a curriculum)."""
    prefix: bool = True
    """Put the token that a document's first one was scored after (BOS, else EOS) before each document, never trained on."""
    eos_id: int | None = None
    """Token that ends each document. Default: the tokenizer's EOS."""
    train_eos: bool = False
    """Train on that token too, though it has no score, so that the model learns where documents end."""
    compression: Literal["none", "gzip", "zstd"] = "none"
    """Of jsonl."""
    input: str | None = None
    """For parquet and jsonl: where the corpus is now (folder, file or glob, as it was scored). Default: where its score set
    says. With it, shards are compared by size and ids alone, as copies have other times of change."""
    scores: str | None = None
    """Score set that the selection was made from, where the selection's own note of its place no longer holds."""
    units_per_part: int = 16
    """Units of the selection in one part: a task, and a file (or a few). Fewer need less memory and make more files."""
    workers: int | None = None
    """Tasks at a time. Default: a few for each CPU of the cluster."""
