"""A corpus of real text in four groups, as shards of several formats; a few documents empty or broken on purpose.

python-docs  CPython's documentation topics (what is not in the curated slice, which the reference is trained on)
source       modules of the standard library
licences     licence texts of the packages that this project installs
languages    Django's interface texts in languages other than English
"""

import gettext
import gzip
import importlib.metadata
import json
import sysconfig
from pathlib import Path
from pydoc_data import topics
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from demo.packages import cache_folder, unpacked

CURATED_GROUP = "python-docs"
EVALUATED = 5_000
"""Characters of held-out text, about 1,200 tokens."""
LANGUAGES = ("de", "es", "fr", "it", "ja", "ko", "pl", "ru", "ar", "zh_Hans")
MODULES = (
    "this",
    "bisect",
    "heapq",
    "textwrap",
    "shlex",
    "fnmatch",
    "sched",
    "colorsys",
    "graphlib",
    "contextlib",
    "queue",
    "csv",
)


class Text(NamedTuple):
    """One document."""

    id: str
    source: str
    text: str | None


def curated() -> list[Text]:
    """The curated slice: every second documentation topic. The reference is fine-tuned on it; it is not in the corpus."""
    return _topics()[0::2]


def write_curated(target: Path) -> Path:
    """Write the curated slice under `target`, for the training of the reference."""
    return _jsonl(target, curated())


def write_evaluation(target: Path) -> Path:
    """Write the last of the other topics under `target`: they are neither in the corpus nor in the curated slice."""
    return _jsonl(target, _up_to(held_out()[::-1], EVALUATED, longest=2_500))


def held_out() -> list[Text]:
    """The other documentation topics."""
    return _topics()[1::2]


def _topics() -> list[Text]:
    found = [Text(f"topic/{name}", CURATED_GROUP, text) for name, text in sorted(topics.topics.items())]
    return [text for text in found if len(text.text or "") > 200]


def _source() -> list[Text]:
    library = Path(sysconfig.get_paths()["stdlib"])
    return [Text(f"module/{name}", "source", (library / f"{name}.py").read_text()) for name in MODULES]


def _licences() -> list[Text]:
    """Licence files of installed packages, each text once (two with the same end are the same licence)."""
    found: dict[str, Text] = {}
    for distribution in sorted(importlib.metadata.distributions(), key=lambda d: d.metadata["Name"].lower()):
        for file in distribution.files or []:
            if "dist-info" in str(file) and file.name.upper().startswith(("LICENSE", "COPYING")):
                path = Path(str(distribution.locate_file(file)))
                text = path.read_text(errors="replace") if path.is_file() else ""
                if len(text) > 500:
                    found.setdefault(
                        " ".join(text.split())[-300:],
                        Text(f"licence/{distribution.metadata['Name']}", "licences", text),
                    )
    return list(found.values())


def _languages(longest: int) -> list[Text]:
    """Interface texts: a document a language, the translations alone, a line each; then single texts as short documents."""
    documents, short = [], []
    for language in LANGUAGES:
        catalogue = unpacked("Django") / "django" / "conf" / "locale" / language / "LC_MESSAGES" / "django.mo"
        with catalogue.open("rb") as file:
            translations = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        lines = [text for key, text in sorted((str(k), v) for k, v in translations.items()) if key and len(text) > 30]
        documents.append(Text(f"language/{language}", "languages", "\n".join(lines[2:])[:longest]))
        short += [Text(f"language/{language}/{i}", "languages", line) for i, line in enumerate(lines[:2])]
    return [*documents, *short]


def _up_to(texts: list[Text], characters: int, *, longest: int) -> list[Text]:
    """Texts, each cut at `longest` characters, `characters` in all."""
    taken, total = [], 0
    for text in texts:
        if total >= characters:
            break
        taken.append(text._replace(text=(text.text or "")[: min(longest, characters - total)]))
        total += len(taken[-1].text or "")
    return taken


def build(target: Path, share: float = 1.0) -> Path:
    """Write the corpus under `target`: Parquet, JSONL and JSONL.gz shards, about 60,500 tokens of SmolLM2.

    `share`: of that length, by which the longest documents are cut too; 0.2 gives about 13,100 tokens.
    """

    def of(characters: int) -> int:
        return round(share * characters)

    target.mkdir(parents=True, exist_ok=True)
    docs = _up_to(held_out(), of(80_000), longest=of(30_000))
    source = _up_to(_source(), of(77_500), longest=of(26_000))
    licences = _up_to(_licences(), of(46_000), longest=of(6_000))
    languages = _languages(of(1_200))
    short = [Text(f"short/{i}", "source", line) for i, line in enumerate((source[0].text or "").splitlines()[:2])]
    _parquet(target / "docs-000.parquet", docs[0::2])
    _parquet(target / "docs-001.parquet", [*docs[1::2], Text("broken/null", CURATED_GROUP, None)])
    _parquet(target / "source-000.parquet", [*source, *short, Text("empty", "source", "")])
    _parquet(target / "licences-000.parquet", licences[0::2])
    with (target / "licences-001.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(text._asdict()) + "\n" for text in licences[1::2])
    with gzip.open(target / "languages-000.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(text._asdict(), ensure_ascii=False) + "\n" for text in languages)
        file.write('{"id": "broken/line", "source": "languages", "text": "cut off in the mid\n')
        file.write('{"id": "broken/type", "source": "languages", "text": 42}\n')
    return target


def _jsonl(target: Path, texts: list[Text]) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    with (target / "texts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(text._asdict()) + "\n" for text in texts)
    return target


def _parquet(path: Path, texts: list[Text]) -> None:
    table = pa.table({name: [getattr(text, name) for text in texts] for name in Text._fields})
    pq.write_table(table, path, row_group_size=4, compression="zstd")


if __name__ == "__main__":
    print(build(cache_folder() / "demo" / "corpus"))
