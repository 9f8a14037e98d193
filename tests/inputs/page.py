"""docs/inputs.md from the tables: `python -m tests.inputs.page > docs/inputs.md`."""

from collections.abc import Sequence

from rho_score.corpus.lines import LARGEST_SHARD, LONGEST_LINE
from tests.inputs.jsonl_kinds import JSONL, TEXT
from tests.inputs.kinds import Kind
from tests.inputs.model_kinds import MODELS
from tests.inputs.parquet_kinds import PARQUET
from tests.inputs.path_kinds import PATHS

INTRODUCTION = f"""# Input: what is read, quarantined, refused

This page is made from the tables in `tests/inputs/`, where each kind is a file that a test writes and reads:
`python -m tests.inputs.page > docs/inputs.md`.

- **Scored**: the document has a row with its tokens, unchanged. Its tokens decode to its text.
- **Quarantined**: the document has a record in `OUT/quarantine/` with its id and this reason; the run ends with exit code 3.
- **Refused**: exit code 2 before anything is run. The message names the file, the value and the remedy.

Shards are `.parquet`, and JSON lines: `.json`, `.jsonl` or `.ndjson`, plain or with `.gz`, `.zst`, `.bz2` or `.xz` behind it. What they are
compressed with their first bytes tell. Names with a part that begins with `_` are left out and named, with a dot left out.

A column is a name, or a path into structs and JSON objects (`meta.source`), or, for ids and groups where the file has none,
a folder named `KEY=VALUE`. Ids and groups may have any scalar type: dates and times are ISO 8601, durations seconds, binary of
a fixed size hexadecimal. Several columns make an id with `/` between them: `--id-column lang,id`.

Documents in = scored + quarantined, always. Where the reason or the message depends on a library's words it ends with `…`.
A line of JSONL, and a text in Parquet, may have {LONGEST_LINE >> 20} MiB; of a compressed JSONL shard {LARGEST_SHARD >> 30} GiB
of text are read, of a unit of Parquet {LARGEST_SHARD >> 30} Gi characters of text, ids and groups. `rho-score plan` names what is left out.
"""


def _table(title: str, kinds: Sequence[Kind]) -> str:
    rows = "\n".join(kind.page_line for kind in kinds)
    return f"\n## {title}\n\n| input | answer |\n|---|---|\n{rows}\n"


def page() -> str:
    """The page, as Markdown."""
    parts = [INTRODUCTION]
    parts += [_table("Parquet", PARQUET), _table("JSONL", JSONL), _table("Texts", TEXT), _table("Paths", PATHS)]
    models = "\n".join(kind.page_line for kind in MODELS)
    note = "Exit code 1: found by the worker as it loads the model; no unit is scored.\n"
    parts.append(f"\n## Models and tokenizers\n\n{note}\n| model | exit code | answer |\n|---|---|---|\n{models}\n")
    return "".join(parts).replace("{model}", "MODEL")


if __name__ == "__main__":
    print(page(), end="")
