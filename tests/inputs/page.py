"""docs/inputs.md from the tables: `python -m tests.inputs.page > docs/inputs.md`."""

from collections.abc import Sequence

from rho_score.corpus.lines import LARGEST_SHARD, LONGEST_LINE
from tests.inputs.arrow_kinds import ARROW
from tests.inputs.content_kinds import CONTENT
from tests.inputs.jsonl_kinds import JSONL, TEXT
from tests.inputs.kinds import Kind
from tests.inputs.model_kinds import MODELS
from tests.inputs.parquet_kinds import PARQUET
from tests.inputs.path_kinds import PATHS
from tests.inputs.tar_kinds import TARS
from tests.inputs.token_kinds import TOKENS

INTRODUCTION = f"""# Input: what is read, quarantined, refused

This page lists every kind of input with its answer. It is made from the tables in `tests/inputs/`, where each kind is a file
that a test writes and reads: `python -m tests.inputs.page > docs/inputs.md`.

- **Scored**: the document has a row with its tokens, unchanged. Its tokens decode to its text.
- **Quarantined**: the document has a record in `OUT/quarantine/` with its id and this reason; the run ends with exit code 3.
- **Refused**: exit code 2 before anything is run. The message names the file, the value and the remedy.

Shards are `.parquet` files, Arrow files and streams (`.arrow`, `.arrows`, `.ipc`, `.feather`), tars of samples (`.tar`), and
JSON Lines named `.json`, `.jsonl`, `.jsonlines` or `.ndjson`, plain or with `.gz`, `.zst`, `.lz4`, `.bz2` or `.xz` behind the name. The first bytes of a
file tell how it is compressed, not its name. With `--token-files`, shards are files of token ids instead (`.bin`, `.npy`). Files
with a part of their name that begins with `_` are left out, and `rho-score plan` names them. Names that begin with a dot are
ignored.

A column is a name, or a path into structs and JSON objects (`meta.source`). For ids and groups it may also be a folder named
`KEY=VALUE`, where the file has no such column. Ids and groups may have any scalar type: dates and times become ISO 8601,
durations become seconds, and binary of a fixed size becomes hexadecimal. Several columns make an id with `/` between them:
`--id-column lang,id`.

The number of documents is always the number scored plus the number quarantined. A reason or a message that depends on the
words of a library ends with `…`. A line of JSON Lines and a text in Parquet may have {LONGEST_LINE >> 20} MiB. At most
{LARGEST_SHARD >> 30} GiB of text are read from a compressed JSON Lines shard, and {LARGEST_SHARD >> 30} Gi characters of text,
ids and groups from a unit of Parquet.
"""


def _table(title: str, kinds: Sequence[Kind]) -> str:
    rows = "\n".join(kind.page_line for kind in kinds)
    return f"\n## {title}\n\n| input | answer |\n|---|---|\n{rows}\n"


def page() -> str:
    """The page, as Markdown."""
    parts = [INTRODUCTION]
    tables = {
        "Parquet": PARQUET,
        "Arrow, saved datasets, Delta and Iceberg tables": ARROW,
        "JSONL": JSONL,
        "Texts": TEXT,
        "Ids, chats, prompts, prefixes and pairs": CONTENT,
        "Tars": TARS,
        "Files of token ids": TOKENS,
        "Paths": PATHS,
    }
    parts += [_table(title, kinds) for title, kinds in tables.items()]
    models = "\n".join(kind.page_line for kind in MODELS)
    note = "Exit code 1: found by the worker as it loads the model; no unit is scored.\n"
    parts.append(f"\n## Models and tokenizers\n\n{note}\n| model | exit code | answer |\n|---|---|---|\n{models}\n")
    return "".join(parts).replace("{model}", "MODEL")


if __name__ == "__main__":
    print(page(), end="")
