"""Stores that the viewer's tests look at, small and made without a model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from rho_score.config import SelectConfig, ViewConfig
from rho_score.selecting.job import select
from rho_score.stores.open import open_store
from rho_score.viewing.answers import Answers
from rho_score.viewing.job import open_answers
from tests.stores import Doc, cut, write_scores

TEXTS = [
    "the model learns a token of text",
    "naïve café 東京 🙂 Привет",
    "مرحبا بالعالم، هذا نص عربي",
    "quantile THRESHOLD histogram\nshard\tdocument",
    "the reference tells which tokens are worth it",
]


@dataclass(frozen=True)
class Stores:
    """Two score sets, a selection of tokens and one of documents, all of the same documents."""

    folder: Path
    documents: list[tuple[Doc, Doc]]
    texts: list[str]

    def url(self, name: str) -> str:
        """Where a store is."""
        return str(self.folder / name)


@pytest.fixture(scope="module")
def stores(
    tokenizer: PreTrainedTokenizerFast, make_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Stores:
    """Stores of 60 documents in five units of two shards."""
    folder = tmp_path_factory.mktemp("viewed")
    random = np.random.default_rng(5)
    pairs, texts = [], []
    for i in range(60):
        text = " ".join(TEXTS[int(k)] for k in random.integers(0, len(TEXTS), int(random.integers(0, 4))))
        text += " needle" if i % 20 == 7 else ""
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        group = [*"abc", None][i % 4]
        losses = [[float(np.float16(x)) for x in random.gamma(0.7, 3.0, len(ids))] for _ in range(2)]
        mine: list[list[float | None]] = [[None if random.random() < 0.05 else x for x in loss] for loss in losses]
        pairs.append((Doc(f"Doc-{i}", group, ids, mine[0]), Doc(f"Doc-{i}", group, ids, mine[1])))
        texts.append(text)
    for name, side in (("ref", 0), ("base", 1)):
        docs = [pair[side] for pair in pairs]
        write_scores(folder / name, [cut(docs[:40], (11, 13)), cut(docs[40:], (9,))], tokenizer=make_model(1))
    scores = {"ref": (f"{folder}/ref",), "base": f"{folder}/base"}
    select(SelectConfig(output=f"{folder}/selection", ratio=0.4, **scores))  # type: ignore[arg-type]
    select(SelectConfig(output=f"{folder}/documents", ratio=0.4, level="document", **scores))  # type: ignore[arg-type]
    select(SelectConfig(output=f"{folder}/by-document", ratio=0.4, scope="document", **scores))  # type: ignore[arg-type]
    select(SelectConfig(output=f"{folder}/drop-top", ratio=0.3, drop_top=0.1, **scores))  # type: ignore[arg-type]
    select(SelectConfig(output=f"{folder}/low", ratio=0.3, ref=(f"{folder}/ref",)))
    return Stores(folder, pairs, texts)


@pytest.fixture(scope="module")
def opened(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Answers]]:
    """Opens stores by their names, and waits until their indexes are ready."""
    cache, every = str(tmp_path_factory.mktemp("cache")), dict[tuple[str, ...], Answers]()

    def open_them(*names: str) -> Answers:
        if names not in every:
            first, *others = map(stores.url, names)
            every[names] = open_answers(ViewConfig(store=first, beside=tuple(others), cache=cache))
            for shown in every[names].stores:
                shown.index.wait()
                assert shown.index.progress.ready, shown.index.progress.error
        return every[names]

    yield open_them
    for answers in every.values():
        answers.close()


def tables(url: str) -> "list[tuple[int, int, dict[str, object]]]":
    """Every row of a store as Python objects, read without the viewer: unit, row and columns."""
    store = open_store(url)
    found = []
    for number, unit in enumerate(store.units):
        found += [(number, row, values) for row, values in enumerate(store.unit_table(unit.unit).to_pylist())]
    return found
