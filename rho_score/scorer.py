"""Per-token losses of documents under one model. No Ray here: a worker holds one `Scorer`, and so can a notebook."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from rho_score.errors import InputError
from rho_score.loss import Head, token_losses
from rho_score.model import load_model
from rho_score.windows import Window, micro_batches, windows

log = logging.getLogger(__name__)

# What the proof at load allows between the fast path and the plain forward of the same dtype, mean nats.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}
LADDER = {
    torch.float16: [torch.float16, torch.bfloat16, torch.float32],
    torch.bfloat16: [torch.bfloat16, torch.float32],
}


class _Piece(NamedTuple):
    document: int
    window: Window


class Scorer:
    """Scores documents with one causal LM.

    Fast path: windows sorted by length into micro-batches, padded on the right without an attention mask (a real token
    of a causal model never sees what stands to its right), body first, then the head over blocks of the vocabulary.
    At load it is proved on a few documents against the model's own plain forward; where they differ, the plain forward
    is used, and a warning says so.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        context: int,
        overlap: int,
        prefix_id: int | None,
        batch_tokens: int,
        device: str = "cpu",
    ) -> None:
        self.context, self.overlap, self.prefix_id, self.batch_tokens = (
            context,
            overlap,
            prefix_id,
            batch_tokens,
        )
        self.device = torch.device(device)
        self._model_name = model
        self._models: dict[torch.dtype, Any] = {}
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.fast = False
        self._refuse_if_not_causal()
        self.fast = self._prove()

    def score_documents(self, ids: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Loss of every token, in nats.

        Args:
            ids: token ids of each document, int[n].

        Returns:
            One float32[n] a document, in the same order. NaN: the token has no loss (the first one, where the
            vocabulary has no prefix). A document whose losses are not finite in float16 is scored again in bfloat16,
            then in float32; one that still is not comes back as it is, for the caller to refuse.
        """
        losses = self._score(ids, self.dtype)
        for dtype in LADDER.get(self.dtype, [self.dtype])[1:]:
            if bad := [i for i, loss in enumerate(losses) if not self.is_finite(loss)]:
                log.warning("%d documents overflow; scoring them again in %s", len(bad), dtype)
                for i, loss in zip(bad, self._score_wider([ids[i] for i in bad], dtype), strict=True):
                    losses[i] = loss
        return losses

    def _score_wider(self, ids: Sequence[np.ndarray], dtype: torch.dtype) -> list[np.ndarray]:
        """Score with a copy of the model in another dtype, which is dropped again; NaN where it does not fit in memory."""
        try:
            return self._score(ids, dtype)
        except torch.OutOfMemoryError as error:
            log.warning("no memory for the model in %s: %s", dtype, error)
            return [np.full(len(document), np.nan, np.float32) for document in ids]
        finally:
            self._models.pop(dtype, None)

    def is_finite(self, loss: np.ndarray) -> bool:
        """Whether every token that must have a loss has a finite one."""
        return bool(np.isfinite(loss[0 if self.prefix_id is not None else 1 :]).all())

    def _model(self, dtype: torch.dtype) -> Any:
        if dtype not in self._models:
            self._models[dtype] = load_model(self._model_name, dtype, self.device)
        return self._models[dtype]

    @torch.inference_mode()
    def _score(self, ids: Sequence[np.ndarray], dtype: torch.dtype) -> list[np.ndarray]:
        losses = [np.full(len(document), np.nan, np.float32) for document in ids]
        pieces = [
            _Piece(i, window)
            for i, document in enumerate(ids)
            for window in windows(
                len(document),
                context=self.context,
                overlap=self.overlap,
                has_prefix=self.prefix_id is not None,
            )
        ]
        lengths = [piece.window.stop - piece.window.start for piece in pieces]
        for batch in micro_batches(lengths, batch_tokens=self.batch_tokens if self.fast else 1):
            self._score_batch([pieces[i] for i in batch], ids, losses, self._model(dtype))
        return losses

    def _score_batch(
        self, pieces: list[_Piece], ids: Sequence[np.ndarray], losses: list[np.ndarray], model: Any
    ) -> None:
        """One forward pass over windows, the longest first; writes into `losses`."""
        prefix = [] if self.prefix_id is None else [self.prefix_id]
        inputs = [np.concatenate([prefix, ids[p.document][p.window.start : p.window.stop - 1]]) for p in pieces]
        targets = [ids[p.document][p.window.first : p.window.stop] for p in pieces]
        padded = np.zeros((len(pieces), len(inputs[0])), np.int64)
        for row, tokens in zip(padded, inputs, strict=True):
            row[: len(tokens)] = tokens
        # A window's last len(target) positions are those that predict what it is to score.
        rows = np.concatenate([np.full(len(t), i) for i, t in enumerate(targets)])
        columns = np.concatenate([np.arange(len(x) - len(t), len(x)) for x, t in zip(inputs, targets, strict=True)])
        found = self._forward(
            model,
            torch.from_numpy(padded).to(self.device),
            (torch.from_numpy(rows).to(self.device), torch.from_numpy(columns).to(self.device)),
            torch.from_numpy(np.concatenate(targets).astype(np.int64)).to(self.device),
        )
        values = found.cpu().numpy()
        at = 0
        for piece, target in zip(pieces, targets, strict=True):
            losses[piece.document][piece.window.first : piece.window.stop] = values[at : at + len(target)]
            at += len(target)

    def _forward(
        self,
        model: Any,
        input_ids: torch.Tensor,
        at: tuple[torch.Tensor, torch.Tensor],
        targets: torch.Tensor,
    ) -> torch.Tensor:
        """Losses of `targets` (Shape (N,)), predicted at positions `at` (rows, columns) of input_ids (Shape (B, T))."""
        if not self.fast:
            logits = model(input_ids, use_cache=False).logits[at].float()
            return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        hidden = model.base_model(input_ids, use_cache=False).last_hidden_state[at]
        block_tokens, block_words = (1024, 1024) if self.device.type == "cpu" else (4096, 32768)
        return token_losses(hidden, targets, Head.of(model), block_tokens=block_tokens, block_words=block_words)

    def _refuse_if_not_causal(self) -> None:
        """A causal model's losses do not change with what comes after; one whose losses do would score noise."""
        document = np.random.default_rng(1).integers(0, self._vocabulary, 24)
        changed = np.concatenate([document[:20], (document[20:] + 1) % self._vocabulary])
        before, after = (np.nan_to_num(loss[:20]) for loss in self._score([document, changed], self.dtype))
        if float(np.abs(before - after).mean()) > TOLERANCE[self.dtype]:
            raise InputError(f"{self._model_name} is not causal: the loss of a token depends on tokens after it.")

    @property
    def _vocabulary(self) -> int:
        return int(self._model(self.dtype).config.get_text_config().vocab_size)

    def _prove(self) -> bool:
        """Compare the fast path with the plain forward on a few documents; whether it may be used."""
        random = np.random.default_rng(0)
        ids = [random.integers(0, self._vocabulary, n) for n in (3, 40, 17, 2, min(self.context, 100) + 9)]
        for dtype in LADDER.get(self.dtype, [self.dtype]):  # a wider one where these documents overflow
            try:
                self.fast = True
                fast = np.concatenate(self._score(ids, dtype))
            except (AttributeError, RuntimeError, TypeError, ValueError) as error:
                log.warning("%s: the fast path fails (%s); using the plain forward, slower", self._model_name, error)
                return False
            self.fast = False
            difference = np.abs(fast - np.concatenate(self._score(ids, dtype)))
            finite = np.isfinite(difference)
            if finite.any() and (mean := float(difference[finite].mean())) <= TOLERANCE[dtype]:
                return True
            if finite.any():
                log.warning(
                    "%s: the fast path differs from the plain forward by %.2e nats in the mean (allowed %.0e); "
                    "using the plain forward, slower",
                    self._model_name,
                    mean,
                    TOLERANCE[dtype],
                )
                return False
        log.warning("%s: no finite loss on any test document; using the plain forward, slower", self._model_name)
        return False
