"""Peak memory of one process: `python -m bench.memory head|windowed|exact`. Prints rows as JSON."""

import json
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from rho_score.inference.scorer import Scorer

LONG = 100_000


def random_model(folder: Path, *, vocabulary: int, positions: int, width: int) -> str:
    """A random Llama of two layers."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=width // 32, num_key_value_heads=width // 32, max_position_embeddings=positions,
        bos_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def resident() -> int:
    """Resident memory now, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


class Watch:
    """Highest resident memory while it is open, sampled every 5 ms."""

    def __enter__(self) -> "Watch":
        self.before = self.peak = resident()
        self.halves: list[int] = []
        self._open = True
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while self._open:
            now = resident()
            self.peak = max(self.peak, now)
            self.halves.append(now)
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()

    @property
    def above_mb(self) -> float:
        """Peak above what there was before, MB."""
        return (self.peak - self.before) / 1e6

    @property
    def half_mb(self) -> tuple[float, float]:
        """Peak above the start in the first and in the second half of the time."""
        middle = len(self.halves) // 2
        first, second = max(self.halves[:middle]), max(self.halves[middle:])
        return (first - self.before) / 1e6, (second - self.before) / 1e6


def main(part: str) -> list[tuple[str, str]]:
    """One row of the table."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        if part == "head":
            model = random_model(Path(folder), vocabulary=150_000, positions=2048, width=256)
            scorer = Scorer(
                model, dtype="float32", context=2048, overlap=512, prefix_id=0, batch_tokens=16_384,
                signals=("entropy", "rank"),
            )  # fmt: skip
            ids = [random.integers(0, 150_000, 2047) for _ in range(8)]
            with Watch() as watch:
                scorer.score(ids)
            name = "peak memory above weights, vocabulary 150,000, 16,384 tokens in a pass, all signals"
            return [(name, f"**{watch.above_mb:,.0f} MB** (whole logits: {16_384 * 150_000 * 4 / 1e6:,.0f} MB)")]
        exact = part == "exact"
        model = random_model(Path(folder), vocabulary=1000, positions=131_072 if exact else 2048, width=64)
        scorer = Scorer(
            model, dtype="float32", context=131_072 if exact else 2048, overlap=0 if exact else 512, prefix_id=0,
            batch_tokens=2048,
        )  # fmt: skip
        ids = [random.integers(0, 1000, LONG)]
        with Watch() as watch:
            started = time.perf_counter()
            scored = scorer.score(ids)
            wall = time.perf_counter() - started
        assert np.isfinite(scored.loss[0]).all()
        assert len(scored.loss[0]) == LONG
        first, second = watch.half_mb
        how = "exact, context 131,072 in passes of 2,048" if exact else "in windows of 2,048"
        return [
            (
                f"a document of {LONG:,} tokens (random model), {how}",
                f"every token once in {wall:.0f} s; peak {first:,.0f} MB above weights in the first half, {second:,.0f} in the second",
            )
        ]


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
