"""docs/families.md from the sweep's rows."""

from collections import Counter

import torch
import transformers

from tests.families.sweep import CHUNK, SAME, TOKENS, WITH_IMAGES, Row
from tests.families.tiny import CONTEXT, LENGTH

WAYS = ("packed", "padded", "plain", "refused", "not built")


def page(rows: list[Row]) -> str:
    """The page of all families."""
    text = [row for row in rows if row.family not in WITH_IMAGES]
    images = [row for row in rows if row.family in WITH_IMAGES]
    return f"""# Model families

Every causal family of transformers {transformers.__version__}, each as a small random model, scored as any model is: loaded from its
directory, proved, and then given documents of {", ".join(map(str, TOKENS))} tokens. Windows, chunks, top-k and other lengths of
its configuration are set to {LENGTH}, so that they bind in the middle of a document; the context is {CONTEXT}.
This page is made by `python -m tests.families --page docs/families.md` (torch {torch.__version__.split("+")[0]}, float32, on a CPU).

- **way**: packed (no padding, documents one behind the other), padded (a rectangle), plain (the model's own forward, one window
  at a time: right for every model, and slower), or refused before anything is scored.
- **chunks**: windows longer than a pass go in chunks with a cache of keys and values (here of {CHUNK} tokens).
- **alone, in company**: the largest difference of any token's loss to the plain forward, in nats: of documents by themselves; and
  among others, in every fast way that the proof at load lets pass, and in chunks.
- **why**: what the warnings at load say.

A family counts as wrong where a token differs by more than {SAME:g} nats. {_count(text)}

{_table(text)}

## Vision-language models

Their text part is scored; no image is. {_count(images)} A family is not built where transformers makes no
small model of it, or none that reads text alone, without images, packages or settings of its own; such a model is proved at load like all others.

{_table(images)}
"""


def _count(rows: list[Row]) -> str:
    ways = Counter(row.way for row in rows)
    wrong = sum(row.is_wrong for row in rows)
    return f"Of {len(rows)} families {', '.join(f'{ways[way]} are {way}' for way in WAYS if ways[way])}; **{wrong} are wrong without a warning**."


def _table(rows: list[Row]) -> str:
    lines = ["| family | way | chunks | alone | in company | why |", "|---|---|---|---|---|---|"]
    for row in rows:
        numbers = f"{row.alone:.0e} | {row.company:.0e}" if row.is_scored else "| "
        why = row.reason.replace("|", "\\|").replace("\n", " ").replace("it: ", "")
        lines.append(f"| `{row.family}` | {row.way} | {'yes' if row.chunks else ''} | {numbers} | {why} |")
    return "\n".join(lines)
