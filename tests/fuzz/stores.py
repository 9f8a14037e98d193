"""Stores of which one file is changed, and what reads them."""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rho_score.cli import commands
from rho_score.config import CurveConfig, DynamicsConfig, SelectConfig
from rho_score.reporting.curve import curve
from rho_score.reporting.page import _facts, _groups
from rho_score.reporting.sample import sample_tokens, scores_behind
from rho_score.selecting.dynamics import dynamics
from rho_score.selecting.job import select
from rho_score.stores.manifest import new_manifest
from rho_score.stores.open import open_store
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from rho_score.stores.tokenizer import load_store_tokenizer
from tests.fuzz.place import OURS, place
from tests.stores import cut, random_documents, write_scores


@dataclass(frozen=True)
class Stores:
    """Two score sets, a selection and one by token dynamics, made once."""

    ref: Path
    base: Path
    selection: Path
    dynamics: Path


@cache
def stores() -> Stores:
    """The stores of this process."""
    folder = place() / "stores"
    pairs = random_documents(24, seed=1)
    (tokenizer := folder / "tokenizer").mkdir(parents=True)
    _save_tokenizer(tokenizer)
    shards: list[Any] = [cut([pair[i] for pair in pairs], [9, 7]) for i in (0, 1)]
    for name, units in zip(("ref", "base"), shards, strict=True):
        write_scores(folder / name, [units], tokenizer=tokenizer)
    ref, base = str(folder / "ref"), str(folder / "base")
    select(select_config(folder / "selection"))
    dynamics(DynamicsConfig(output=str(folder / "dynamics"), scores=(base, ref)))
    return Stores(folder / "ref", folder / "base", folder / "selection", folder / "dynamics")


def _save_tokenizer(folder: Path) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE({c: i for i, c in enumerate([*letters, "</s>"])}, []))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend", "eos_token": "</s>"}')


def select_config(output: Path, **options: Any) -> SelectConfig:
    folder = place() / "stores"
    rule = {"ratio": 0.5} | options
    return SelectConfig(output=str(output), ref=(str(folder / "ref"),), base=str(folder / "base"), workers=1, **rule)


@contextlib.contextmanager
def _instead(path: Path, content: bytes) -> Any:
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def _each(*calls: Callable[[], Any]) -> None:
    """Every call, though one before it is refused; refused as a whole if any is."""
    refused: BaseException | None = None
    for call in calls:
        try:
            call()
        except OURS as error:
            refused = error
    if refused:
        raise refused


def in_store(file: Callable[[], Path], *uses: Callable[[], Any]) -> Callable[[bytes], None]:
    def run(content: bytes) -> None:
        stores()
        with _instead(file(), content):
            _each(*uses)

    return run


def first(store: Path) -> Path:
    return sorted((store / "data").iterdir())[0]


def use_ref() -> None:
    store = open_store(str(stores().ref))
    assert isinstance(store, ScoreSet)
    _ = store.grouped, store.tokenizer_sha256, store.units, store.n_units, store.loss_bits
    _facts(store)
    sample_tokens(store, n_tokens=100)


def use_selection() -> None:
    store = open_store(str(stores().selection))
    assert isinstance(store, Selection)
    scores_behind(store)
    _facts(store)
    _groups(store, sample_tokens(store, n_tokens=100))


def finished_select() -> None:
    commands.COMMANDS["select"].run(select_config(stores().selection))


def finished_dynamics() -> None:
    config = DynamicsConfig(output=str(stores().dynamics), scores=(str(stores().base), str(stores().ref)), workers=1)
    commands.COMMANDS["dynamics"].run(config)


def dry_run(**options: Any) -> Callable[[], None]:
    return lambda: commands.COMMANDS["select"].run(select_config(place() / "none", dry_run=True, **options))


def use_curve() -> None:
    curve(CurveConfig(selection=str(stores().selection), tokens=(5,), threshold=(0.1,)))
    curve(CurveConfig(selection=str(stores().selection), csv=str(place() / "curve.csv")))


def resumed(content: bytes) -> None:
    """A selection that was interrupted, with one of its files changed; its name comes first."""
    name, _, rest = content.partition(b"\n")
    output = place() / "resumed"
    select(select_config(output))
    files = sorted(path for folder in ("data", "counts") for path in (output / folder).iterdir())
    chosen = files[len(name) % len(files)]
    (output / "summary.json").unlink()
    with _instead(chosen, rest):
        select(select_config(output))


def with_parts(content: bytes) -> None:
    """A manifest whose parts are not what they should be, and whose fingerprint agrees with them."""
    try:
        parts = json.loads(content)
    except ValueError:
        parts = None
    before = json.loads((stores().ref / "manifest.json").read_bytes())
    if isinstance(parts, dict):
        merged = {k: v for k, v in {**before["parts"], **parts}.items() if v != "left out"}
        made = new_manifest("score set", merged, input=parts.get("input", {}))
        made["scores"] = parts.get("scores", {})
        content = orjson.dumps(made)
    with _instead(stores().ref / "manifest.json", content):
        _each(use_ref, dry_run())


def parts(_: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    leaf = st.one_of(
        st.none(), st.booleans(), st.integers(-5, 1 << 40), st.floats(), st.text(max_size=5), st.just("left out")
    )
    value = st.one_of(leaf, st.lists(leaf, max_size=3), st.dictionaries(st.text(max_size=4), leaf, max_size=3))
    names = [
        "group_column",
        "tokenizer_sha256",
        "precision",
        "context",
        "text_column",
        "prefix_id",
        "schema_version",
        "input",
    ]
    return st.dictionaries(st.sampled_from(names), value, min_size=1, max_size=4).map(lambda d: json.dumps(d).encode())


def tokenizer_file(name: str) -> Callable[[bytes], None]:
    def run(content: bytes) -> None:
        stores()
        with _instead(stores().ref / "tokenizer" / name, content):
            load_store_tokenizer(ScoreSet.open(str(stores().ref)))

    return run


def in_folder(pattern: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [path.read_bytes() for path in sorted(stores().ref.parent.glob(pattern))]


def resumable() -> Sequence[bytes]:
    stores()
    select(select_config(place() / "resumed"))
    files = sorted(path for folder in ("data", "counts") for path in (place() / "resumed" / folder).iterdir())
    return [b"x" * i + b"\n" + path.read_bytes() for i, path in enumerate(files)]
