"""Per-token losses of documents under one model.

Nothing here needs Ray: a worker holds one `Scorer`, and a notebook can hold one too.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import torch

from rho_score.config import Signal
from rho_score.errors import InputError
from rho_score.inference.batches import Passes, ignore
from rho_score.inference.forward import Forward, Layout
from rho_score.inference.scored import Scored
from rho_score.inference.self_check import FP8, ProofDocuments, examine, make_documents, prove
from rho_score.models.load import ModelSource, load_model

log = logging.getLogger(__name__)

LADDER = {
    torch.float16: [torch.float16, torch.bfloat16, torch.float32],
    torch.bfloat16: [torch.bfloat16, torch.float32],
}
DEFAULT_BATCH_TOKENS = 2048  # on a CPU; the activations of larger passes do not fit into its cache
DEFAULT_TOP_K = 8
CUDA_BATCH_TOKENS = (4096, 65536)  # bounds of what is derived from a GPU's free memory


class Scorer:
    """Scores documents with one causal LM.

    Windows are packed one after the other into passes of `batch_tokens` positions. The body of the
    model runs first, then its head over blocks of the vocabulary. A window longer than a pass goes
    in chunks, with a cache of keys and values. At load, each fast layout
    (`rho_score.inference.forward.Layout`) is compared with the model's own plain forward on a few
    documents. If one differs, a warning says so and the next is tried.

    Args:
        top_k: how many of the likeliest tokens the signal top-k has, at most the size of the
            vocabulary.
        batch_tokens: positions in a pass. None: by the free memory on a GPU, 2048 on a CPU.
        compile: compile the model's layers, unless they are spread over several GPUs or quantized
            by bitsandbytes.
        on_phase: called with the name of each step while the model is loaded and checked.

    Raises:
        InputError: the model is not causal, or does not fit into memory.
    """

    def __init__(
        self,
        model: str | ModelSource,
        *,
        dtype: str,
        context: int,
        overlap: int,
        prefix_id: int | None,
        batch_tokens: int | None = None,
        signals: Sequence[Signal] = (),
        top_k: int = DEFAULT_TOP_K,
        compile: bool = False,
        device: str = "cpu",
        on_phase: Callable[[str], None] = log.debug,
    ) -> None:
        self.prefix_id = prefix_id
        self.signals: tuple[Signal, ...] = tuple(s for s in get_args(Signal) if s in signals)
        self._top_k = top_k if "top-k" in signals else 0
        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self._no_room: torch.dtype | None = None
        self._source = model if isinstance(model, ModelSource) else ModelSource(model=model)
        on_phase("loading the model")
        self.passes = Passes(self._load(self.dtype), context, overlap, prefix_id, batch_tokens or DEFAULT_BATCH_TOKENS)
        layout, self.passes.chunked = self._prove(compile, on_phase)
        self.passes.forward.use_layout(layout)
        if batch_tokens is None and self.device.type == "cuda":
            self.passes.batch_tokens = self._budget()

    @property
    def layout(self) -> Layout:
        """The layout of the passes through the model."""
        return self.passes.forward.layout

    @property
    def weight_note(self) -> str:
        """A note on stored weights that the model does not use, and on tied weights not stored.

        It is empty if there are neither.
        """
        return str(self.passes.forward.model.weight_note)

    def score_documents(self, ids: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the loss of every token in nats: `score(ids).loss`."""
        return self.score(ids).loss

    def score(self, ids: Sequence[np.ndarray], on_tokens: Callable[[int], None] = ignore) -> Scored:
        """Returns the loss and the signals of every token.

        Args:
            ids: token ids of each document, int[n].
            on_tokens: called with the number of tokens of each pass, see
                `rho_score.inference.batches.Passes`.

        A document whose losses are not finite in float16 is scored again in bfloat16, then in
        float32. If they are not finite in float32 either, they are returned as they are, for the
        caller to refuse.
        """
        passed = self.passes(ids, on_tokens)
        again: set[int] = set()
        for dtype in LADDER.get(self.dtype, [self.dtype])[1:]:
            if bad := [i for i, loss in enumerate(passed.losses) if not self.is_finite(loss)]:
                log.warning("%d documents overflow; scoring them again in %s", len(bad), dtype)
                again.update(bad)
                for i, statistics in zip(bad, self._wider([ids[i] for i in bad], dtype), strict=True):
                    passed.statistics[i] = statistics
        return Scored(
            loss=passed.losses,
            signals={
                name: passed.rows(name) if name.startswith("top_") else passed.values(name)
                for name in dict.fromkeys(passed.names)
                if name != "loss"
            },
            rescored=len(again),
            positions=passed.positions,
            padding=passed.padding,
        )

    def is_finite(self, loss: np.ndarray) -> bool:
        """True if every token that must have a loss has a finite one."""
        return bool(np.isfinite(loss[0 if self.prefix_id is not None else 1 :]).all())

    @property
    def overflow(self) -> str:
        """The reason to report for a document whose losses are not finite in any dtype."""
        if self._no_room is None:
            return "its losses are not finite, not even in float32: the model overflows on it"
        narrow, wide = (str(dtype).removeprefix("torch.") for dtype in (self.dtype, self._no_room))
        return f"its losses are not finite in {narrow}, and there was not enough memory to try {wide}"

    def _load(self, dtype: torch.dtype) -> Forward:
        source = self._source
        if source.quantize == "fp8" and dtype != self.dtype:  # its products know no wider dtype
            source = replace(source, quantize=None)
        model = load_model(source, dtype, self.device)
        return Forward(
            model,
            self.device,
            entropy="entropy" in self.signals,
            rank="rank" in self.signals,
            top_k=self._top_k,
        )

    def _wider(self, ids: Sequence[np.ndarray], dtype: torch.dtype) -> list[np.ndarray]:
        """Returns the statistics from a temporary copy of the model in another dtype.

        They are NaN if the copy does not fit into memory.
        """
        try:
            forward = self._load(dtype)
            forward.use_layout(self.layout._replace(compiled=False))
            return replace(self.passes, forward=forward)(ids).statistics
        except (torch.OutOfMemoryError, InputError) as error:
            log.warning("no memory for the model in %s: %s", dtype, error)
            self._no_room = dtype
            return [
                np.full((len(self.passes.forward.statistics), len(document)), np.nan, np.float32) for document in ids
            ]

    def _prove(self, compile: bool, on_phase: Callable[[str], None]) -> tuple[Layout, bool]:
        """Returns the fastest layout that passes the check, and whether windows may go in chunks.

        The check uses a wider dtype if the test documents overflow in this one.
        """
        compile = compile and self._source.quantize in (None, "fp8") and self._source.n_gpus == 1
        layouts = [*([Layout("packed", True)] if compile else []), Layout("packed"), Layout("padded")]
        model = self._source.model
        for dtype in LADDER.get(self.dtype, [self.dtype]):
            passes = self.passes if dtype == self.dtype else replace(self.passes, forward=self._load(dtype))
            documents = make_documents(passes)
            precision = FP8 if self._source.quantize == "fp8" and dtype == self.dtype else dtype
            on_phase("compiling the model and checking it" if compile else "checking the model")
            try:
                alone = examine(passes, documents, precision, model)
                proved = prove(passes, documents, [] if alone else layouts, precision, model)
            except torch.OutOfMemoryError as error:
                raise InputError(_no_room_for_proof(model, documents)) from error
            if proved is not None:
                return proved
        raise InputError(
            f"{self._source.model} gives no finite loss on any test document, not even in float32: its weights are "
            "damaged (NaN or infinite). Fetch or train it again."
        )

    def _budget(self) -> int:
        """Returns the number of tokens in a pass, by the memory that one pass takes.

        A pass of that size takes at most four fifths of the GPU's free memory.
        """
        fewest, most = CUDA_BATCH_TOKENS
        self.passes.batch_tokens = fewest
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.passes([np.zeros(fewest, np.int64)])
        taken = (torch.cuda.max_memory_allocated() - before) / fewest
        free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        budget = fewest
        while budget < most and 2 * budget * taken <= 0.8 * free:
            budget *= 2
        log.info("%d tokens in a pass: %.0f KiB each, %.1f GiB free", budget, taken / 1024, free / 2**30)
        return budget


def _no_room_for_proof(model: str, documents: ProofDocuments) -> str:
    if documents.long is None:
        return f"{model} leaves no memory for a pass of a few tokens. Take a larger GPU, or raise --gpus-per-worker."
    (length, name), *_ = documents.lengths.items()
    return (
        f"{model} computes differently beyond {name} = {length} tokens, and there is not enough memory to check passes of "
        f"{len(documents.long)} tokens. Give a --context of at most {length}, or take a larger GPU."
    )
