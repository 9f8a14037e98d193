"""`--quantize fp8` beside the same scorer without it: a part of `bench.scoring` on a GPU."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from bench.rows import Row, accuracy_row, bytes_row, rate_row
from bench.texts import Slice
from rho_score.inference.scorer import Scorer
from rho_score.scoring.verify import compare

if TYPE_CHECKING:
    from bench.scoring import Bench


def fp8_rows(bench: "Bench", dealt: list[Slice]) -> Iterator[Row]:
    """Speed and memory, slice by slice, and both beside a plain float32 forward on short documents."""
    yield Row("**FP8 weights and products**, tokens/s", "")
    scorers = {bench.dtype: bench.scorer, "fp8": bench.load("fp8")}
    yield Row("layout of the passes in FP8", str(scorers["fp8"].layout))
    rates: dict[str, list[float]] = {name: [] for name in scorers}
    peaks = dict.fromkeys(scorers, 0)
    for one in [dealt[-1], *dealt]:  # the first is a rehearsal
        for name, scorer in scorers.items():
            torch.cuda.reset_peak_memory_stats()
            rates[name].append(one.tokens / bench.seconds(scorer, one))
            peaks[name] = torch.cuda.max_memory_allocated()
    for of in rates.values():
        del of[0]
    ratios = [fast / plain for fast, plain in zip(rates["fp8"], rates[bench.dtype], strict=True)]
    yield rate_row(bench.dtype, rates[bench.dtype])
    yield rate_row("fp8", rates["fp8"], ratios, f"it ÷ {bench.dtype}")
    weights = {name: weight_bytes(scorer) for name, scorer in scorers.items()}
    for name, n_bytes in weights.items():
        yield bytes_row(f"weights in {name}", n_bytes)
    for name, peak in peaks.items():
        others = sum(n_bytes for other, n_bytes in weights.items() if other != name)
        yield bytes_row(f"peak memory of the GPU, {name} (less the weights of the other)", peak - others)
    ids = [document[:400] for document in dealt[1].ids[1:7]]
    found = {name: scorer.score_documents(ids) for name, scorer in scorers.items()}
    expected = bench.plain_losses(ids)
    for name, losses in found.items():
        yield accuracy_row(f"{name} against float32, nats", compare(losses, expected, ""))


def weight_bytes(scorer: Scorer) -> int:
    """Bytes of a model's weights, tied ones once. Weights in FP8 are two tensors each."""
    parts = [
        part
        for weight in scorer.passes.forward.model.parameters()
        for part in ((weight.qdata, weight.scale) if hasattr(weight, "qdata") else (weight,))
    ]
    return sum(part.numel() * part.element_size() for part in parts)
