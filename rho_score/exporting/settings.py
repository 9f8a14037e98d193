"""Checks and resolves every option of an export before anything is written."""

import math
from dataclasses import asdict, dataclass

import numpy as np

from rho_score.config import ExportConfig
from rho_score.corpus.formats import format_of
from rho_score.corpus.whole_rows import Compression, without_rows
from rho_score.errors import InputError
from rho_score.exporting.labels import BlocksWriter, LabelsWriter, WeightsWriter
from rho_score.exporting.megatron import MegatronWriter, megatron_dtype
from rho_score.exporting.nanogpt import BinWriter, OlmoWriter, bin_dtype
from rho_score.exporting.original_rows import Corpus, corpus_root
from rho_score.exporting.token_source import TokenSource
from rho_score.exporting.writer import Writer
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.safe_text import visible
from rho_score.stores.framing import REF_LOSS, Documents, Frame
from rho_score.stores.lineage import covers, noted_score_set, open_score_set
from rho_score.stores.manifest import new_manifest, relative_url, resolve_relative
from rho_score.stores.schema import WEIGHT
from rho_score.stores.score_set import ScoreSet, require_context, require_losses
from rho_score.stores.selection import Selection
from rho_score.stores.tokenizer import load_store_tokenizer, scored_prefix

LAYOUT_VERSION = 4
"""Version 3 put a second EOS behind documents that end with one, version 2 had no attention_mask and no
seq_lengths, and version 1 kept blocks without any label."""
ORIGINALS = ("parquet", "jsonl", "dpo")
MASK_DTYPE = np.dtype(np.uint8)  # of the mask in flat files

MASK = {
    "labels": "labels[i] is token i itself, or -100; models that shift inside (Hugging Face) take it as it is",
    "bin": "mask[i] = 1: train on predicting token i; weigh the loss of data[i + 1] with mask[i + 1]",
    "olmo": "label_mask[i]: train on predicting token i; OLMo-core shifts it with the labels",
    "levanter": "loss_weights[i]: of predicting token i + 1; shifted already, so leave loss_weight_transform out",
    "megatron": "mask[i] = 1: train on predicting token i; the loss mask of labels tokens[1:] is mask[1:]",
}

_TRAPS = {
    "labels": "pad rows with a collator that keeps labels (DataCollatorForSeq2Seq, TRL's). DataCollatorForLanguageModeling "
    "overwrites them",
    "blocks": "a row holds several documents. Give position_ids, no attention mask and use_cache=False (rho.collate_blocks; TRL "
    "with padding_free), or they see each other",
    "bin": "the loss of the target data[i + 1] is weighed with mask[i + 1]. nanoGPT's ignore index is -1",
    "olmo": "the .npy files have no header: map them (np.memmap), or read them raw",
    "levanter": "the weights are shifted already: leave loss_weight_transform out",
    "megatron": "GPTDataset makes a loss mask of its own. A dataset of yours has to read the _mask files "
    "(examples/megatron_dataset.py)",
    "parquet": "the documents are whole; nothing in them is masked",
    "jsonl": "the documents are whole; nothing in them is masked",
    "dpo": "DPOTrainer computes the reference's log-probabilities again, even if they are there: take them over as "
    "examples/trl_dpo.py does",
}


def trap(config: ExportConfig) -> str:
    """What a trainer may misread in an export of this format."""
    return _TRAPS["blocks" if config.block_size else config.format] + "."


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What a task must know.

    vocabulary: all token ids are below it. source: where tokens are read. corpus: None unless whole
    documents are exported.
    """

    selection: str
    output: str
    format: str
    block_size: int | None
    hard_first: bool
    frame: Frame
    pad_id: int
    vocabulary: int
    source: TokenSource
    join: bool
    """True if the parts are pieces of one file."""
    val_share: float
    compression: Compression
    corpus: Corpus | None
    margins: tuple[float, float]
    """With the format dpo: the smallest and the largest margin of a pair that is written."""

    def first_is_no_target(self, documents: Documents) -> np.ndarray:
        """The documents whose first token is none to train on, bool[n_docs]: no prefix comes before it.

        A document with another token that is trained on in any case, its EOS, is none of them.
        """
        rows = self.format == "levanter" or (self.format == "labels" and not self.block_size)
        if not rows or self.frame.prefix_id is not None:
            return np.zeros(len(documents.lengths), bool)
        trains_eos = self.frame.eos_id is not None and self.frame.train_eos
        has_other = trains_eos & (self.frame.adds_eos(documents) | (documents.lengths > 1))
        return (documents.lengths > 0) & ~has_other

    @property
    def token_dtype(self) -> np.dtype:
        """The type of the tokens in flat files."""
        return (megatron_dtype if self.format == "megatron" else bin_dtype)(self.vocabulary)

    @property
    def stream_begins_with(self) -> int | None:
        """The token that stands before the first document of a flat file; None if there is none."""
        return self.frame.eos_id if self.frame.prefix_id == self.frame.eos_id else None

    def writer(self) -> Writer:
        """A new writer of the token format."""
        columns = self.source.columns
        if self.format == "bin":
            return BinWriter(self.frame, dtype=self.token_dtype, columns=columns, piece=self.join)
        if self.format == "olmo":
            return OlmoWriter(self.frame, dtype=self.token_dtype)
        if self.format == "levanter":
            return WeightsWriter(self.frame, weighted=WEIGHT in columns)
        if self.format == "megatron":
            return MegatronWriter(self.frame, dtype=self.token_dtype)
        if self.block_size:
            return BlocksWriter(self.frame, block_size=self.block_size, pad_id=self.pad_id, columns=columns)
        return LabelsWriter(self.frame, columns)


def resolve_settings(config: ExportConfig, selection: Selection | ScoreSet) -> tuple[ExportSettings, JsonObject]:
    """Checks the options and resolves every default; returns the settings and the manifest."""
    whole = config.format in ORIGINALS
    _check_options(config)
    tokenizer = load_store_tokenizer(selection)
    vocabulary = max(tokenizer.get_vocab().values()) + 1
    prefix = scored_prefix(selection, tokenizer, given=config.scores)
    eos = tokenizer.eos_token_id if config.eos_id is None else config.eos_id
    if config.format in ("bin", "olmo") and eos is None:
        raise InputError(
            f"the tokenizer has no EOS, but --format {config.format} needs a token between documents. Name one with --eos-id."
        )
    if eos is None and config.train_eos:
        raise InputError("--train-eos: the tokenizer has no EOS. Name one with --eos-id.")
    if eos is not None and not 0 <= eos < vocabulary:
        raise InputError(f"--eos-id {eos} is not an id of the tokenizer, whose ids are 0 to {vocabulary - 1}.")
    pad = next((i for i in (eos, tokenizer.pad_token_id, prefix) if i is not None), 0)
    frame = Frame(prefix_id=prefix if config.prefix else None, eos_id=eos, train_eos=config.train_eos)
    settings = ExportSettings(
        selection=config.selection,
        output=config.output,
        format=config.format,
        block_size=config.block_size,
        hard_first=config.order == "hard-first",
        frame=frame,
        pad_id=pad,
        vocabulary=vocabulary,
        source=_token_source(config, selection),
        join=config.join or config.val_share > 0,
        val_share=config.val_share,
        compression=config.compression,
        corpus=_corpus(config, selection) if whole else None,
        margins=(
            -math.inf if config.min_margin is None else config.min_margin,
            math.inf if config.max_margin is None else config.max_margin,
        ),
    )
    parts = {
        "layout_version": LAYOUT_VERSION,
        "selection": selection.manifest["fingerprint"],
        "format": config.format,
        "units_per_part": config.units_per_part,
        "block_size": config.block_size,
        "order": config.order,
        "compression": config.compression,
        **({} if whole else {**asdict(frame), "pad_id": pad if config.block_size else None}),
        **({"margins": [config.min_margin, config.max_margin]} if config.format == "dpo" else {}),
        "columns": settings.source.columns,
        "join": settings.join,
        "val_share": settings.val_share,
    }
    about = {"dtype": settings.token_dtype.name} if config.format in ("bin", "olmo", "megatron") else {}
    about |= {"note": trap(config)} | ({} if whole else {"mask": MASK[config.format]})
    place = relative_url(config.selection, config.output)
    return settings, new_manifest("export", parts, source=place, vocabulary=vocabulary, **about)


def _check_options(config: ExportConfig) -> None:
    if config.units_per_part < 1:
        raise InputError(f"--units-per-part must be at least 1, got {config.units_per_part}.")
    if config.block_size is not None and (config.format != "labels" or config.block_size < 2):
        raise InputError(
            f"--block-size is for --format labels and must be at least 2, got {config.block_size} with --format "
            f"{config.format}."
        )
    if config.order != "corpus" and config.format in ORIGINALS:
        raise InputError(
            f"--order {config.order} is for token formats, but --format {config.format} keeps the order of the corpus."
        )
    if config.format in ORIGINALS and (config.train_eos or not config.prefix or config.eos_id is not None):
        raise InputError(
            f"--train-eos, --no-prefix and --eos-id are for token formats, but --format {config.format} writes text."
        )
    if not 0 <= config.val_share < 1:
        raise InputError(f"--val-share must be at least 0 and below 1, got {config.val_share}.")
    if (config.join or config.val_share) and config.format not in ("bin", "megatron"):
        raise InputError(f"--join and --val-share are for --format bin and megatron, not {config.format}.")
    formats = ("labels", "bin", "levanter") if config.columns == ("weight",) else ("labels", "bin")
    if config.columns and (config.format not in formats or config.order != "corpus"):
        raise InputError(
            "--columns is for --format labels and bin, in the order of the corpus. --format levanter takes --columns weight."
        )
    if config.compression != "none" and config.format not in ("jsonl", "dpo"):
        raise InputError("--compression is for --format jsonl and dpo. Parquet files are always compressed.")
    if config.format != "dpo" and (config.min_margin is not None or config.max_margin is not None):
        raise InputError(f"--min-margin and --max-margin are for --format dpo, not {config.format}.")


def _token_source(config: ExportConfig, store: Selection | ScoreSet) -> TokenSource:
    """Where tokens are read, and the references whose losses are exported."""
    names = {"score": store.score_column, "ref-loss": REF_LOSS, "weight": WEIGHT}
    if "weight" in config.columns and not (isinstance(store, Selection) and store.weighted):
        raise InputError(
            f"--columns weight: {config.selection} has no weights. Make a selection with `rho-score select … --weights`."
        )
    columns = tuple(dict.fromkeys(names[column] for column in config.columns))
    if REF_LOSS in columns and not store.in_nats:
        raise InputError(
            f"--columns ref-loss needs losses in nats, but {config.selection} was made of imported values of another unit. Export "
            "them with --columns score."
        )
    if REF_LOSS not in columns:
        return TokenSource(config.selection, columns)
    if isinstance(store, ScoreSet):
        _check_reference(store)
        return TokenSource(config.selection, columns)
    parts = store.manifest["parts"]
    references = [name for name in store.manifest["scores"] if name != "base"]
    if parts["score"] == "delta" or (parts.get("combine") == "union" and len(references) > 1):
        raise InputError(
            f"--columns ref-loss: the tokens of {config.selection} have no single reference loss. Export a selection by excess "
            "loss or by the reference's loss, not by token dynamics or --combine union."
        )
    if config.scores is not None and len(references) > 1:
        raise InputError("--scores gives one score set, but the selection has several references.")
    found = [noted_score_set(store, name, given=config.scores) for name in references]
    places = []
    for name, scores in zip(references, found, strict=True):
        if scores is None or not covers(scores, store):
            raise InputError(
                f"--columns ref-loss: the score set of {name} is not where it was. Give its place with --scores."
            )
        _check_reference(scores)
        places.append(scores.folder.url)
    return TokenSource(config.selection, columns, tuple(places), parts.get("combine") == "mean")


def _check_reference(scores: ScoreSet) -> None:
    """Raises InputError unless a model in training may subtract these losses from its own."""
    for require in (require_losses, require_context):
        require(scores, "--columns ref-loss, which a trainer subtracts from the losses of its model,")


def _corpus(config: ExportConfig, selection: Selection | ScoreSet) -> Corpus:
    """The corpus that a selection of documents was made from."""
    if config.format == "dpo":
        if not isinstance(selection, ScoreSet) or selection.columns.kind != "pair":
            raise InputError(
                f"--format dpo writes preference pairs, but {config.selection} is no score set of pairs. Make one with "
                "`rho-score score … --chosen-column … --rejected-column …`."
            )
        if (shard := without_rows(selection.units)) is not None:
            raise InputError(
                f"--format dpo writes the rows of the pairs with all their columns, which is not possible from tars ({visible(shard)}). "
                "Write the samples as Parquet or JSON Lines, and score them again."
            )
        return _place_of(config, selection)
    if isinstance(selection, ScoreSet):
        raise InputError(
            f"--format {config.format} writes the documents that a selection keeps, but {config.selection} is a score set."
        )
    level = selection.manifest["parts"]["level"]
    if level != "document":
        raise InputError(
            f"--format {config.format} writes whole documents, but {config.selection} selects by {level}. Make a selection "
            "with `rho-score select … --level document`, or export tokens with --format labels, bin or megatron."
        )
    if (shard := without_rows(selection.units)) is not None:
        raise InputError(
            f"--format {config.format} writes documents with all their columns, which is not possible from files of token ids and "
            f"from tars ({visible(shard)}). Export tokens, for example with --format labels, bin or megatron."
        )
    lines = list(dict.fromkeys(unit.shard for unit in selection.units if format_of(unit).ROWS == "lines"))
    if config.format == "parquet" and lines:
        raise InputError(
            f"{len(lines)} shards hold JSON ({lines[0]}), whose columns have no declared types. Their types in Parquet "
            "would be guessed. Use --format jsonl, which takes every kind."
        )
    scores = open_score_set(selection, config.scores)
    if scores is None:
        raise InputError(
            f"the score set that {config.selection} was made from is not where it was. Give its place with --scores."
        )
    if scores.columns.kind == "pair":
        raise InputError(
            f"--format {config.format} writes whole rows, but {config.selection} keeps single responses of pairs. Export the "
            "score set with --format dpo."
        )
    return _place_of(config, scores)


def _place_of(config: ExportConfig, scores: ScoreSet) -> Corpus:
    """The corpus of a score set, where it is now."""
    noted = scores.manifest.get("input", {}).get("root")
    if config.input is None and noted is None:
        raise InputError("the score set does not say where its corpus is. Give the place with --input.")
    root = Folder(resolve_relative(scores.folder, noted)) if config.input is None else corpus_root(config.input)
    moved = config.input is not None
    return Corpus(root=root, moved=moved, columns=scores.columns, quarantine=scores.folder)
