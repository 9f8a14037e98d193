"""The options of `rho-score import`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional

from rho_score.config.corpus import CorpusConfig
from rho_score.config.option import Group, metavar
from rho_score.config.score import Precision

Level = Literal["token", "byte", "document"]
ValueUnit = Literal["nats", "other"]

_TOKENS = Group("Tokens")
_VALUES = Group("Values")
_OUTPUT = Group("Output and workers")


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Make a score set of values that another program computed.

    The result has the documents, tokens and groups of an existing score set, and in place of its
    losses the values, which are found by the ids of the documents. It can be selected from,
    exported and looked at like any other score set. Documents without usable values keep their
    place, have no score, are listed with the reason, and the run then ends with exit code 3. If a
    run stops before its end, run the same command again to resume it.
    """

    values: Annotated[Positional[str], metavar("VALUES")]
    """The values: a folder that is searched recursively, a file or a glob, given as a path or as
    any fsspec URL. Shards are .parquet files and JSON lines, as for `rho-score score`."""
    output: Annotated[Positional[str], metavar("OUTPUT")]
    """The score set to write, as a path or as any fsspec URL."""

    like: Annotated[str, _TOKENS, metavar("SCORES")]
    """The finished score set whose documents, tokens, groups and units the result has. A token that
    has no loss there, such as a prompt, has none in the result."""

    unit: Annotated[ValueUnit, _VALUES]
    """What the values are. nats are losses in nats, which can be subtracted from those of a model.
    other is anything else, such as the score of a classifier."""
    level: Annotated[Level, _VALUES] = "token"
    """What a value is for. token takes a list with a value for each token; byte takes a list with a
    value for each UTF-8 byte of the text; document takes one number, which each token of the
    document gets."""
    values_column: Annotated[str, _VALUES, metavar("COLUMN")] = "values"
    """The column that holds the values of a document: a number or a list of numbers. A null and a
    NaN mean that there is no value. A dotted name reaches into structs and JSON objects."""
    id_column: Annotated[str, _VALUES, metavar("COLUMN")] = "doc_id"
    """The column that holds a document's id as the score set has it. Several names are joined with
    / (lang,id)."""
    ids_column: Annotated[str | None, _VALUES, metavar("COLUMN")] = None
    """With --level token: the column that holds the ids of the tokens that the values are for. They
    are compared with those of the score set."""
    reduce: Annotated[Literal["sum", "mean"], _VALUES] = "sum"
    """With --level byte: what a token gets of the values of its bytes. The sum is right for
    losses."""

    precision: Annotated[Precision | None, _OUTPUT] = None
    """The precision in which values are stored and ranked. By default, it is that of the score set.
    float16 has three digits and reaches 65,504."""
    allow_missing: Annotated[bool, _OUTPUT] = False
    """Exit with code 0 instead of 3 if documents have no values."""
    workers: Annotated[int | None, _OUTPUT, metavar("N")] = None
    """How many tasks run at the same time. By default, as many as the cluster has CPUs for."""


@dataclass(frozen=True, kw_only=True)
class ValuesConfig(CorpusConfig):
    """The values of an import, as a corpus that is planned and read like any other."""

    on_token_files: ClassVar[str] = ""

    values_column: str
    """The column that holds the values."""
