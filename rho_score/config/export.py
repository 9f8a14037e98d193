"""The options of `rho-score export`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional

from rho_score.config.option import Group, metavar

_FORMAT = Group("Format")
_DOCUMENTS = Group(
    "Documents", "These options are for the formats that hold tokens: labels, bin, megatron, olmo and levanter."
)
_MOVED = Group("Sources", "A selection notes where its score set is, and the score set where its corpus is.")
_WORK = Group("Parts and workers")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a selection or a score set in a format that trainers read.

    Documents of which nothing is kept are left out and counted. If a run stops before its end, run
    the same command again to resume it.
    """

    selection: Annotated[Positional[str], metavar("STORE")]
    """The selection, as a path or as any fsspec URL. It may also be a score set, of which every
    token that has a loss is trained on."""
    output: Annotated[Positional[str], metavar("OUTPUT")]
    """The export to write, as a path or as any fsspec URL."""
    format: Annotated[Literal["labels", "bin", "megatron", "olmo", "levanter", "parquet", "jsonl", "dpo"], _FORMAT]
    """The format of the files. labels is Parquet with input_ids and labels for Hugging Face's
    Trainer, TRL and Axolotl, where -100 marks a token that is not trained on. bin is nanoGPT's .bin
    with a .mask beside it. megatron is Megatron-LM's indexed dataset with a second one for the
    mask. olmo is OLMo-core's headless .npy files of token ids and label masks. levanter is Parquet
    with input_ids and float loss_weights. parquet and jsonl are the kept documents with all their
    own columns; they need a selection made with --level document. dpo is the pairs of a score set as
    JSON lines, with ref_chosen_logps and ref_rejected_logps for TRL's DPOTrainer."""
    block_size: Annotated[int | None, _FORMAT, metavar("TOKENS")] = None
    """With --format labels: pack the documents into blocks of exactly this many tokens. By default,
    each document is a row."""
    columns: Annotated[tuple[Literal["score", "ref-loss", "weight"], ...], _FORMAT] = ()
    """With --format labels or bin: write further numbers of each token. score is what the tokens
    were ranked by (a column excess, loss or delta), and ref-loss is the reference's loss, for a
    live selection in another trainer. They are float32 columns in Parquet, with null where a token
    has none, and files of float16 beside a .bin, with NaN. weight is that of `select --weights`, and
    every token with a weight above 0 is then trained on; --format levanter takes it too."""
    join: Annotated[bool, _FORMAT] = False
    """With --format bin or megatron: join the parts into one file, train.bin. It is put together on
    this machine's disk."""
    val_share: Annotated[float, _FORMAT, metavar("RATIO")] = 0.0
    """With --format bin or megatron: put about this share of the documents, chosen by their ids, into
    val.bin, and the others into train.bin."""
    compression: Annotated[Literal["none", "gzip", "zstd"], _FORMAT] = "none"
    """With --format jsonl or dpo: how the files are compressed."""
    min_margin: Annotated[float | None, _FORMAT, metavar("NATS")] = None
    """With --format dpo: leave out pairs whose chosen response is not at least this much more
    likely than the rejected one, by the sums of their log-probabilities."""
    max_margin: Annotated[float | None, _FORMAT, metavar("NATS")] = None
    """With --format dpo: leave out pairs that are farther apart than this."""
    order: Annotated[Literal["corpus", "easy-first", "hard-first"], _DOCUMENTS] = "corpus"
    """The order of the documents: as in the corpus, or sorted by difficulty for a curriculum. The
    difficulty of a document is the mean score of its tokens."""
    prefix: Annotated[bool, _DOCUMENTS] = True
    """Put the token that a document's first token was conditioned on (BOS, else EOS) in front of
    each document. It is never trained on."""
    eos_id: Annotated[int | None, _DOCUMENTS, metavar("ID")] = None
    """The id of the token that ends each document. The default is the tokenizer's EOS token. It is not
    put behind a document that ends with it already."""
    train_eos: Annotated[bool, _DOCUMENTS] = False
    """Also train on the token that ends each document, although it has no score, so that the model
    learns where documents end."""
    input: Annotated[str | None, _MOVED, metavar("INPUT")] = None
    """With --format parquet, jsonl or dpo: the folder, file or glob where the corpus is now, if it has
    moved. Its shards are then compared by size and by document ids alone, because copies have other
    modification times."""
    scores: Annotated[str | None, _MOVED, metavar("SCORES")] = None
    """The score set that the selection was made from, if it has moved. --columns ref-loss reads it."""
    units_per_part: Annotated[int, _WORK, metavar("N")] = 16
    """How many units of the selection make up one part. A part is one task, and one or a few files.
    Fewer units need less memory and make more files."""
    workers: Annotated[int | None, _WORK, metavar("N")] = None
    """How many tasks run at the same time. By default, a few for each CPU of the cluster."""
