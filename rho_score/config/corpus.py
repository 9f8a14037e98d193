"""The options that say what a corpus is."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional

from rho_score.config.option import Group, metavar

ContentKind = Literal["text", "ids", "prefixed", "response", "messages", "pair", "values"]
"""What a document is: a text, token ids, a text behind a prefix, a response to a prompt, a chat, one
response of a preference pair, or, where values are imported, numbers."""

WHOLE: tuple[ContentKind, ...] = ("text", "ids")
"""The kinds of documents of which every token counts."""

TokenFiles = Literal["auto", "uint16", "uint32", "int32", "uint64", "int64"]
"""Files of token ids are read, and those without a header hold this type; with auto there are none of these."""

_CORPUS = Group("Corpus")
_COUNTED = Group(
    "Chats, prompts and prefixes",
    "Tokens that do not count are read by the model as context. They have no loss and are never selected.",
)


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Where the documents are, and which columns hold what."""

    on_token_files: ClassVar[str] = "are read with --token-files"
    """What is told of files of token ids that are left out; empty if nothing is."""

    input: Annotated[Positional[str], metavar("INPUT")]
    """The corpus: a folder that is searched recursively, a file or a glob, given as a path or as
    any fsspec URL such as s3://bucket/corpus. Shards are .parquet files, Arrow files (.arrow or
    .feather, as datasets.save_to_disk writes them) and JSON lines (.json, .jsonl or .ndjson), which
    may be compressed (.gz, .zst, .lz4, .bz2 or .xz), and webdataset's .tar files. Of a Delta table,
    the newest version is read."""
    text_column: Annotated[str, _CORPUS, metavar("COLUMN")] = "text"
    """The string column that holds a document's text. A dotted name reaches into structs and JSON
    objects (body.text)."""
    ids_column: Annotated[str | None, _CORPUS, metavar("COLUMN")] = None
    """The column that holds the ids of a document's tokens in place of a text: a list of integers.
    They are scored as they are, without a prefix unless --prefix names one."""
    token_files: Annotated[TokenFiles | None, _CORPUS] = None
    """Read files of token ids (.bin, and .npy) in place of documents: nanoGPT's and OLMo's flat
    files, llm.c's with their header, numpy's, and Megatron-LM's .bin with its .idx. The value is
    the type of the ids in files without a header. auto is for files that tell it themselves. The ids are
    scored as they are, like those of --ids-column."""
    split_at: Annotated[str, _CORPUS, metavar("{eos,ID}")] = "eos"
    """With --token-files: the id that ends a document in a flat file, whose last token it stays.
    eos is the tokenizer's EOS token. A Megatron-LM dataset has its documents in its .idx."""
    id_column: Annotated[str | None, _CORPUS, metavar("COLUMN")] = None
    """The column that holds a document's id, of any scalar type. A dotted name (meta.id) and the
    KEY of folders named KEY=VALUE work too, and several names are joined with / (lang,id). By
    default, the id is SHARD#ROW in Parquet and Arrow, SHARD@BYTE in JSON lines, SHARD#KEY in tars, and SHARD@TOKEN in flat
    files of token ids."""
    group_column: Annotated[str | None, _CORPUS, metavar("COLUMN")] = None
    """The column that holds a document's group, such as its source or domain. Selections report
    each group and can keep a share of each. A dotted name (meta.source) and the KEY of folders
    named KEY=VALUE work too."""
    messages_column: Annotated[str | None, _COUNTED, metavar("COLUMN")] = None
    """The column that holds a chat in place of a text: a list of messages, each with a role and a
    content. The model's own chat template writes it out, and the tokens of the assistant's turns
    count, each with the token that ends it."""
    tools_column: Annotated[str | None, _COUNTED, metavar("COLUMN")] = None
    """With --messages-column: the column that holds the tools of a chat, for the chat template: a
    list of JSON schemas or a string of their JSON. A chat without a value has no tools."""
    roles: Annotated[tuple[str, ...], _COUNTED, metavar("ROLE")] = ("assistant",)
    """With --messages-column: the roles whose turns count."""
    chat_date: Annotated[str | None, _COUNTED, metavar("YYYY-MM-DD")] = None
    """With --messages-column: the day that is told to chat templates which write today's date. By
    default, it is the day on which the run was begun."""
    prompt_column: Annotated[str | None, _COUNTED, metavar("COLUMN")] = None
    """The string column that holds a prompt. The model reads it and the response as one text, and
    only tokens with a character of the response count."""
    response_column: Annotated[str | None, _COUNTED, metavar("COLUMN")] = None
    """With --prompt-column: the string column that holds the response."""
    chosen_column: Annotated[str | None, _COUNTED, metavar("COLUMN")] = None
    """The column that holds the preferred response of a pair, a string or a list of messages. Each
    row becomes two documents, ID/chosen and ID/rejected, with the tokens that TRL's DPOTrainer
    makes of them. The prompt is --prompt-column, or what both responses begin with."""
    rejected_column: Annotated[str | None, _COUNTED, metavar("COLUMN")] = None
    """With --chosen-column: the column that holds the other response of the pair."""
    prefix_column: Annotated[str | None, _COUNTED, metavar("COLUMN")] = None
    """A string column whose value comes before the text and does not count, such as a title or an
    address. A document without a value has no prefix."""
    unit_bytes: Annotated[int, _CORPUS, metavar("BYTES")] = 16_000_000
    """The bytes of text in one unit. A unit is the piece of work that is retried, published and
    resumed as a whole. The default is about 4 million tokens; on a CPU, 500000 finishes a unit
    every few minutes."""
