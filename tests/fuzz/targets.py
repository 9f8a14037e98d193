"""What is fuzzed: each target takes any bytes and must end with a result or an error of ours.

An `OSError` is one too: the command line tells it as an error of ours, without a traceback.
"""

import bz2
import gzip
import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.fuzz.corpora import (
    IDS,
    NESTED,
    TOKENS,
    arrow_files,
    corpus_target,
    file_names,
    indices,
    jsonl,
    nested_jsonl,
    nested_parquet,
    parquet_files,
    tars,
    token_files,
    zstd,
)
from tests.fuzz.mutate import bytes_like
from tests.fuzz.options import COMMANDS, CONFIGS, argument_bytes, arguments, config_file
from tests.fuzz.stores import (
    dry_run,
    finished_dynamics,
    finished_select,
    first,
    in_folder,
    in_store,
    parts,
    resumable,
    resumed,
    stores,
    tokenizer_file,
    use_curve,
    use_ref,
    use_selection,
    with_parts,
)  # fmt: skip


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


SELECTION_USES = (use_selection, finished_select, use_curve)
TARGETS = [
    Target("parquet", parquet_files, corpus_target("x.parquet"), share=2),
    Target("jsonl", lambda: [jsonl()], corpus_target("x.jsonl"), share=2),
    Target("jsonl-gz", lambda: [gzip.compress(jsonl(), mtime=0)], corpus_target("x.jsonl.gz"), share=2),
    Target("jsonl-bz2", lambda: [bz2.compress(jsonl())], corpus_target("x.ndjson.bz2"), share=2),
    Target("jsonl-xz", lambda: [lzma.compress(jsonl())], corpus_target("x.json.xz"), share=2),
    Target("json", lambda: [nested_jsonl(), jsonl()], corpus_target("lang=en/x.json", **NESTED)),
    Target("nested-parquet", nested_parquet, corpus_target("lang=en/x.parquet", **NESTED), share=2),
    Target("arrow", arrow_files, corpus_target("x.arrow"), share=2),
    Target("tar", tars, corpus_target("x.tar"), share=2),
    Target("tokens", token_files, corpus_target("x.bin", **TOKENS)),
    Target("megatron", indices, corpus_target("x.idx", {"x.bin": IDS.tobytes()}, **TOKENS)),
    Target("jsonl-zst", lambda: [zstd(jsonl())], corpus_target("x.jsonl.zst"), share=2),
    Target("file-names", lambda: [b"a\n\xc3\xa9"], file_names, lambda _: st.binary(max_size=600), share=2),
    Target("manifest", in_folder("ref/manifest.json"), in_store(lambda: stores().ref / "manifest.json", use_ref, dry_run()), share=2),
    Target("manifest-parts", lambda: [b"{}"], with_parts, parts, share=2),
    Target("plan", in_folder("ref/plan.parquet"), in_store(lambda: stores().ref / "plan.parquet", use_ref, dry_run()), share=2),
    Target("success", in_folder("ref/_SUCCESS.json"), in_store(lambda: stores().ref / "_SUCCESS.json", use_ref, finished_dynamics)),
    Target("score-data", in_folder("ref/data/*"), in_store(lambda: first(stores().ref), use_ref, dry_run(), dry_run(level="document")), share=0.5),
    Target("selection-manifest", in_folder("selection/manifest.json"), in_store(lambda: stores().selection / "manifest.json", *SELECTION_USES)),
    Target("summary", in_folder("selection/summary.json"), in_store(lambda: stores().selection / "summary.json", *SELECTION_USES), share=0.5),
    Target("dynamics-summary", in_folder("dynamics/summary.json"), in_store(lambda: stores().dynamics / "summary.json", finished_dynamics), share=0.5),
    Target("histogram", in_folder("selection/histogram.parquet"), in_store(lambda: stores().selection / "histogram.parquet", use_curve), share=2),
    Target("selection-data", in_folder("selection/data/*"), in_store(lambda: first(stores().selection), use_selection), share=0.5),
    Target("resumed-selection", resumable, resumed, share=0.5),
    Target("tokenizer", in_folder("ref/tokenizer/tokenizer.json"), tokenizer_file("tokenizer.json"), share=0.3),
    Target("tokenizer-config", in_folder("ref/tokenizer/tokenizer_config.json"), tokenizer_file("tokenizer_config.json"), share=0.3),
    Target("config-file", lambda: CONFIGS, config_file, share=2),
    Target("arguments", lambda: [c.replace(" ", "\0").encode() for c in COMMANDS], arguments, argument_bytes, share=0.5),
]  # fmt: skip
