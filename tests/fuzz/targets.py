"""What is fuzzed: each target takes any bytes and must end with a result or an error of ours.

An `OSError` is one too: the command line tells it as an error of ours, without a traceback.
"""

import contextlib
import gzip
import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rho_score import cli
from rho_score.config import CorpusConfig, CurveConfig, DynamicsConfig, PlanConfig, SelectConfig
from rho_score.curve import curve
from rho_score.dynamics import dynamics
from rho_score.errors import RhoScoreError
from rho_score.estimate import estimate
from rho_score.inspect import load_store_tokenizer, sample_tokens, scores_behind
from rho_score.plan import make_plan, read_plan
from rho_score.read import Columns, read_unit
from rho_score.report import _facts, _groups
from rho_score.select import select
from rho_score.storage import Folder
from rho_score.store import ScoreSet, Selection, new_manifest, open_store
from tests.fuzz.mutate import bytes_like
from tests.stores import cut, random_documents, write_scores

ROOT = Path(__file__).parents[2]
OURS = (RhoScoreError, OSError)


@dataclass(frozen=True)
class Target:
    """A name, valid examples (the first must give a result), what is done with any bytes, and how bytes are made of them.

    `share`: of the examples of the other targets.
    """

    name: str
    originals: Callable[[], Sequence[bytes]]
    run: Callable[[bytes], None]
    strategy: Callable[[Sequence[bytes]], st.SearchStrategy[bytes]] = bytes_like
    share: float = 1.0


@cache
def place() -> Path:
    """A folder for this process."""
    keep = tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    _KEPT.append(keep)
    return Path(keep.name)


_KEPT: list[Any] = []


# corpora


def _rows() -> list[dict[str, Any]]:
    texts = ["a b c", "", None, "東京 🙂", "x" * 300, "line\nbreak", "\x00\x1b[31m"]
    return [{"id": f"d{i}", "source": "ab"[i % 2], "n": i, "text": texts[i % 7]} for i in range(23)]


def _parquet_files() -> list[bytes]:
    table, files = pa.Table.from_pylist(_rows()), []
    for options in (
        {"compression": "none", "use_dictionary": False},
        {"compression": "zstd", "write_page_checksum": True},
        {"compression": "snappy", "data_page_version": "2.0", "row_group_size": 5},
        {"compression": "gzip", "column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "use_dictionary": False},
    ):
        sink = io.BytesIO()
        pq.write_table(table, sink, **options)
        files.append(sink.getvalue())
    nested = io.BytesIO()
    pq.write_table(table.append_column("tags", pa.array([[{"k": [1, 2]}]] * len(table))), nested)
    return [*files, nested.getvalue()]


def _jsonl() -> bytes:
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0).encode() for i, row in enumerate(_rows())]
    return b"\n".join([*lines, b"", b"[1]", b'{"id": 1, "text": 7}', b'{"text": "\\ud800"}', b"{" * 50]) + b"\n"


def _zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


def _corpus_target(name: str) -> Callable[[bytes], None]:
    def run(content: bytes) -> None:
        folder = place() / "corpus"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_bytes(content)
        columns = {"text_column": "text", "id_column": "id", "group_column": "source"}
        try:
            plan = make_plan(CorpusConfig(input=str(path), unit_bytes=150, **columns))
            n_documents = 0
            for unit in plan.units:
                table = read_unit(Folder(plan.root), unit, Columns(*columns.values()))
                documents = table.filter(table["doc_id"].is_valid())
                assert documents["text"].null_count == len(documents) - documents["error"].null_count
                n_documents += len(documents)
            rows = [unit.rows for unit in plan.units]
            assert None in rows or sum(rows) == n_documents
            estimate(PlanConfig(input=str(path), **columns))
        finally:
            path.unlink()

    return run


def _file_names(content: bytes) -> None:
    """A corpus whose files have these names, as far as a disk takes them."""
    folder = place() / "names"
    folder.mkdir(exist_ok=True)
    made = []
    try:
        for name in content.split(b"\n")[:6]:
            path = folder / os.fsdecode(name.replace(b"/", b"")[:200] + b".jsonl")
            with contextlib.suppress(OSError, ValueError):
                path.write_bytes(b'{"text": "x"}\n')
                made.append(path)
        plan = make_plan(CorpusConfig(input=str(folder)))
        for unit in plan.units:
            output = Folder(str(place() / "out"))
            assert Path(output.name(f"data/{unit.unit}.parquet")).resolve().parent == (place() / "out/data").resolve()
            assert unit.unit.isascii()
            assert len(unit.unit) < 200
        assert read_plan(plan.to_parquet()) == plan.units
        print(estimate(PlanConfig(input=str(folder))))
    finally:
        for path in made:
            path.unlink(missing_ok=True)


# stores


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
    select(_select(folder / "selection"))
    dynamics(DynamicsConfig(output=str(folder / "dynamics"), scores=(base, ref)))
    return Stores(folder / "ref", folder / "base", folder / "selection", folder / "dynamics")


def _save_tokenizer(folder: Path) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE({c: i for i, c in enumerate([*letters, "</s>"])}, []))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend", "eos_token": "</s>"}')


def _select(output: Path, **options: Any) -> SelectConfig:
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


def _in_store(file: Callable[[], Path], *uses: Callable[[], Any]) -> Callable[[bytes], None]:
    def run(content: bytes) -> None:
        stores()
        with _instead(file(), content):
            _each(*uses)

    return run


def _first(store: Path) -> Path:
    return sorted((store / "data").iterdir())[0]


def _use_ref() -> None:
    store = open_store(str(stores().ref))
    assert isinstance(store, ScoreSet)
    _ = store.grouped, store.tokenizer_sha256, store.units, store.n_units, store.loss_bits
    _facts(store)
    sample_tokens(store, n_tokens=100)


def _use_selection() -> None:
    store = open_store(str(stores().selection))
    assert isinstance(store, Selection)
    scores_behind(store)
    _facts(store)
    _groups(store)
    sample_tokens(store, n_tokens=100)


def _finished_select() -> None:
    cli._select(_select(stores().selection))


def _finished_dynamics() -> None:
    config = DynamicsConfig(output=str(stores().dynamics), scores=(str(stores().base), str(stores().ref)), workers=1)
    cli._dynamics(config)


def _dry_run(**options: Any) -> Callable[[], None]:
    return lambda: cli._select(_select(place() / "none", dry_run=True, **options))


def _curve() -> None:
    curve(CurveConfig(selection=str(stores().selection), tokens=(5,), threshold=(0.1,)))
    curve(CurveConfig(selection=str(stores().selection), csv=str(place() / "curve.csv")))


def _resumed(content: bytes) -> None:
    """A selection that was interrupted, with one of its files changed; its name comes first."""
    name, _, rest = content.partition(b"\n")
    output = place() / "resumed"
    select(_select(output))
    files = sorted(path for folder in ("data", "counts") for path in (output / folder).iterdir())
    chosen = files[len(name) % len(files)]
    (output / "summary.json").unlink()
    with _instead(chosen, rest):
        select(_select(output))


def _manifest(content: bytes) -> None:
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
        _each(_use_ref, _dry_run())


def _parts(_: Sequence[bytes]) -> st.SearchStrategy[bytes]:
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


def _tokenizer_file(name: str) -> Callable[[bytes], None]:
    def run(content: bytes) -> None:
        stores()
        with _instead(stores().ref / "tokenizer" / name, content):
            load_store_tokenizer(ScoreSet.open(str(stores().ref)))

    return run


# configuration and arguments

CONFIGS = [
    b"model: m\nworkers: 1:64\ngroup-column: source\ncontext: 2048\nunit_bytes: 300\nsignals: [entropy, rank]\n",
    b"ref: [math=a, code=b]\nquota: '*=0.3'\ncombine: union\nratio: 0.5\nseed: 0x10\nkeep: high\n",
    b"scores: [a, b]\nsteps: [1, 2.5]\nkeep: [H-L]\nrise: .inf\n",
    b"a: &a [*a]\nmodel: !!python/object/apply:os.system ['true']\n",
    b"model: 2026-01-01\ntext_column: ~\nratio: 1e400\nworkers: [1, {a: b}]\n? [complex, key]\n: x\n",
]


def _config_file(content: bytes) -> None:
    """The same file for every command; refused where every command refuses it."""
    path = place() / "run.yaml"
    path.write_bytes(content)
    taken = 0
    for command in cli._KINDS:
        with contextlib.suppress(*OURS):
            cli._from_file(cli._KINDS[command], str(path), [command])
            taken += 1
    if not taken:
        raise RhoScoreError("no command takes it")


def _arguments(content: bytes) -> None:
    """Arguments apart by NUL; they are only parsed."""
    arguments = content.decode(errors="replace").split("\0")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            cli.parse(arguments)
        except SystemExit as end:
            if end.code not in (0, 2):
                raise
            raise RhoScoreError("usage") from None


COMMANDS = [
    "plan a",
    "score a b --model m",
    "select --ref a b --ratio 0.5",
    "report a b",
    "curve a --ratio 0.1 0.2",
    "export a b --format bin",
]
WORDS = [
    "plan", "score", "select", "curve", "dynamics", "export", "report", "--ref", "a", "m=a", "--ratio", "0.6", "nan", "-1", "--tokens", "1e9",
    "--quota", "*=0.5", "--config", "/dev/null", "--help", "--", "", "--workers", "1:4", "--scores", "--format", "bin", "--model", "--signals",
    "entropy", "--no-compile", "--dtype", "--context", "99999999999999999999", "--level", "document", "\x1b[31m", "é", "=", "--=",
]  # fmt: skip


def _argument_bytes(commands: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    word = st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), st.text(max_size=6))
    more = st.lists(word, max_size=6).map(lambda words: "\0".join(words).encode())
    return st.one_of(more, st.sampled_from(commands), st.tuples(st.sampled_from(commands), more).map(b"\0".join))


def _in_folder(pattern: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [path.read_bytes() for path in sorted(stores().ref.parent.glob(pattern))]


def _resumable() -> Sequence[bytes]:
    stores()
    select(_select(place() / "resumed"))
    files = sorted(path for folder in ("data", "counts") for path in (place() / "resumed" / folder).iterdir())
    return [b"x" * i + b"\n" + path.read_bytes() for i, path in enumerate(files)]


SELECTION_USES = (_use_selection, _finished_select, _curve)
TARGETS = [
    Target("parquet", _parquet_files, _corpus_target("x.parquet"), share=2),
    Target("jsonl", lambda: [_jsonl()], _corpus_target("x.jsonl"), share=2),
    Target("jsonl-gz", lambda: [gzip.compress(_jsonl(), mtime=0)], _corpus_target("x.jsonl.gz"), share=2),
    Target("jsonl-zst", lambda: [_zstd(_jsonl())], _corpus_target("x.jsonl.zst"), share=2),
    Target("file-names", lambda: [b"a\n\xc3\xa9"], _file_names, lambda _: st.binary(max_size=600), share=2),
    Target("manifest", _in_folder("ref/manifest.json"), _in_store(lambda: stores().ref / "manifest.json", _use_ref, _dry_run()), share=2),
    Target("manifest-parts", lambda: [b"{}"], _manifest, _parts, share=2),
    Target("plan", _in_folder("ref/plan.parquet"), _in_store(lambda: stores().ref / "plan.parquet", _use_ref, _dry_run()), share=2),
    Target("success", _in_folder("ref/_SUCCESS.json"), _in_store(lambda: stores().ref / "_SUCCESS.json", _use_ref, _finished_dynamics)),
    Target("score-data", _in_folder("ref/data/*"), _in_store(lambda: _first(stores().ref), _use_ref, _dry_run(), _dry_run(level="document")), share=0.5),
    Target("selection-manifest", _in_folder("selection/manifest.json"), _in_store(lambda: stores().selection / "manifest.json", *SELECTION_USES)),
    Target("summary", _in_folder("selection/summary.json"), _in_store(lambda: stores().selection / "summary.json", *SELECTION_USES), share=0.5),
    Target("dynamics-summary", _in_folder("dynamics/summary.json"), _in_store(lambda: stores().dynamics / "summary.json", _finished_dynamics), share=0.5),
    Target("histogram", _in_folder("selection/histogram.parquet"), _in_store(lambda: stores().selection / "histogram.parquet", _curve), share=2),
    Target("selection-data", _in_folder("selection/data/*"), _in_store(lambda: _first(stores().selection), _use_selection), share=0.5),
    Target("resumed-selection", _resumable, _resumed, share=0.5),
    Target("tokenizer", _in_folder("ref/tokenizer/tokenizer.json"), _tokenizer_file("tokenizer.json"), share=0.3),
    Target("tokenizer-config", _in_folder("ref/tokenizer/tokenizer_config.json"), _tokenizer_file("tokenizer_config.json"), share=0.3),
    Target("config-file", lambda: CONFIGS, _config_file, share=2),
    Target("arguments", lambda: [c.replace(" ", "\0").encode() for c in COMMANDS], _arguments, _argument_bytes, share=0.5),
]  # fmt: skip
