"""One forward pass over a few windows of tokens, in the fastest layout that a model was proved to stand."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from transformers import DynamicCache

from rho_score.inference.attention import PACKED
from rho_score.inference.loss import Head, accumulate, token_statistics

CPU_BLOCK, CUDA_BLOCK = (1024, 1024), (4096, 32768)  # tokens x words of logits at a time; see docs/decisions/006


class Way(NamedTuple):
    """How windows go through the model.

    packed: one behind the other, no padding, attention of `rho_score.inference.attention`. padded: a rectangle, padded on the right,
    no mask (a real token of a causal model never sees what stands to its right), the model's own attention. plain: one
    window at a time, whole logits, as the model's own `forward` makes them.
    """

    layout: Literal["packed", "padded", "plain"]
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.layout} compiled" if self.compiled else self.layout


class Input(NamedTuple):
    """What the model reads of a window, int64[n], and what its last len(targets) positions are to predict, int64[m], m <= n."""

    tokens: np.ndarray
    targets: np.ndarray


class Forward:
    """A loaded model and the way that windows take through it. Returns Shape (1 + entropy + rank, targets), float32."""

    def __init__(self, model: Any, device: torch.device, *, entropy: bool, rank: bool) -> None:
        self.model = model
        self._device = device
        self._entropy, self._rank = entropy, rank
        self._own_attention = _attention_of(model)
        self._blocks = [m for m in model.modules() if type(m).__name__ in (model._no_split_modules or ())]
        self._accumulate = accumulate
        self._way = Way("plain")

    @property
    def n_statistics(self) -> int:
        """Values a token: the loss, and one for each signal."""
        return 1 + self._entropy + self._rank

    @property
    def vocabulary(self) -> int:
        """Words of the model."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def has_position_table(self) -> bool:
        """Whether positions are looked up in a table."""
        tables = (name for name, module in self.model.named_modules() if isinstance(module, torch.nn.Embedding))
        return any("pos" in name.rpartition(".")[2] or name.endswith("wpe") for name in tables)

    @property
    def way(self) -> Way:
        """The way in use."""
        return self._way

    def go(self, way: Way) -> None:
        """Take another way from now on.

        Raises:
            ValueError, TypeError, AttributeError, NotImplementedError: the model does not have it.
        """
        self._way = way
        for config, own in self._own_attention:
            config._attn_implementation = own
        if way.layout == "packed":
            self.model.set_attn_implementation(PACKED)
            if self.model.config.get_text_config()._attn_implementation != PACKED:
                raise ValueError("its attention cannot be replaced")
        if way.layout != "plain":
            self._head = Head.of(self.model)
        if way.compiled and self._accumulate is accumulate:
            self._accumulate = torch.compile(accumulate, dynamic=True)
            for block in self._blocks:  # the same code in every layer: compiled once
                block.compile(dynamic=True)

    def __call__(self, inputs: Sequence[Input], *, size: int | None = None) -> torch.Tensor:
        """Statistics of every target, in the order of `inputs`. size: pad a pack to so many positions."""
        with self._eager_unless(self._way.compiled):
            if self._way.layout == "plain":
                return torch.cat([self._plain(one) for one in inputs], dim=1)
            targets = self._to_device(np.concatenate([one.targets for one in inputs]))
            hidden = self._packed(inputs, size) if self._way.layout == "packed" else self._padded(inputs)
            return self._statistics(hidden, targets)

    def in_chunks(self, one: Input, chunk: int) -> torch.Tensor:
        """The same of one window, in pieces of `chunk` positions: a cache carries keys and values, nothing is computed twice."""
        with self._eager_unless(False):  # compiled code would be specialised to every layer's cache
            return self._in_chunks(one, chunk)

    def _in_chunks(self, one: Input, chunk: int) -> torch.Tensor:
        cache = DynamicCache(config=self.model.config)
        n, skip = len(one.tokens), len(one.tokens) - len(one.targets)
        found = []
        for at in range(0, n, chunk):
            stop = min(at + chunk, n)
            ids = self._to_device(one.tokens[at:stop])[None]
            extra = {}
            if self._way.layout == "packed":
                extra = self._lengths([stop - at])
                extra["position_ids"] = torch.arange(at, stop, device=self._device)[None]
            hidden = self._body(ids, use_cache=True, past_key_values=cache, **extra)[0]
            if stop > skip:
                first = max(at, skip)
                targets = self._to_device(one.targets[first - skip : stop - skip])
                found.append(self._statistics(hidden[first - at :], targets))
        return torch.cat(found, dim=1)

    def _packed(self, inputs: Sequence[Input], size: int | None) -> torch.Tensor:
        """Last hidden states of the target positions, Shape (targets, D), of windows one behind the other."""
        lengths = [len(one.tokens) for one in inputs]
        n = sum(lengths)
        positions = [np.arange(length) for length in lengths]
        if size is not None and size > n:
            # a sequence of its own that nobody looks at, and that may be longer than the context
            lengths.append(size - n)
            positions.append(np.zeros(size - n, np.int64))
        ids = np.zeros(sum(lengths), np.int64)
        ids[:n] = np.concatenate([one.tokens for one in inputs])
        hidden = self._body(
            self._to_device(ids)[None],
            position_ids=self._to_device(np.concatenate(positions))[None],
            use_cache=False,
            **self._lengths(lengths),
        )[0]
        skips = [len(one.tokens) - len(one.targets) for one in inputs]
        if not any(skips):
            return hidden[:n]
        wanted = np.concatenate([np.arange(len(one.tokens)) >= skip for one, skip in zip(inputs, skips, strict=True)])
        return hidden[self._to_device(np.flatnonzero(wanted))]

    def _padded(self, inputs: Sequence[Input]) -> torch.Tensor:
        ids = np.zeros((len(inputs), max(len(one.tokens) for one in inputs)), np.int64)
        wanted = np.zeros(ids.shape, bool)
        for i, one in enumerate(inputs):
            ids[i, : len(one.tokens)] = one.tokens
            wanted[i, len(one.tokens) - len(one.targets) : len(one.tokens)] = True
        hidden = self._body(self._to_device(ids), use_cache=False)
        return hidden.flatten(0, 1)[self._to_device(np.flatnonzero(wanted))]

    def _plain(self, one: Input) -> torch.Tensor:
        logits = self.model(self._to_device(one.tokens)[None], use_cache=False).logits[0, -len(one.targets) :].float()
        targets = self._to_device(one.targets).to(logits.device)[:, None]
        log_p = logits.log_softmax(dim=1)
        columns = [-log_p.gather(1, targets)[:, 0]]
        if self._entropy:
            columns.append(-(log_p.exp() * log_p).sum(dim=1))
        if self._rank:
            columns.append((logits > logits.gather(1, targets)).sum(dim=1).float())
        return torch.stack(columns)

    def _eager_unless(self, compiled: bool) -> AbstractContextManager[None]:
        """Run what was compiled as it was written, unless `compiled`."""
        if compiled or self._accumulate is accumulate:  # nothing to switch off: don't import the compiler
            return nullcontext()
        stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
        return stance

    def _body(self, ids: torch.Tensor, **extra: Any) -> torch.Tensor:
        body = self.model.base_model
        if body is self.model:  # a text model taken out of a larger one, which the library looks for under another name
            body = self.model.model
        hidden: torch.Tensor = body(ids, **extra).last_hidden_state
        return hidden

    def _statistics(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        weight = self._head.weight
        hidden, targets = hidden.to(weight.device), targets.to(weight.device)  # a model on several GPUs
        block_tokens, block_words = CPU_BLOCK if self._device.type == "cpu" else CUDA_BLOCK
        return token_statistics(
            hidden,
            targets,
            self._head,
            entropy=self._entropy,
            rank=self._rank,
            block_tokens=block_tokens,
            block_words=block_words,
            accumulate=self._accumulate,
        )

    def _lengths(self, lengths: Sequence[int]) -> dict[str, Any]:
        """The arguments that Hugging Face models hand on to variable-length attention."""
        ends = self._to_device(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        longest = max(lengths)
        return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}

    def _to_device(self, values: np.ndarray) -> torch.Tensor:
        """Copied while the GPU goes on with what it has: pinned memory, no waiting."""
        tensor = torch.from_numpy(values if values.dtype == np.int32 else values.astype(np.int64, copy=False))
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)


def _attention_of(model: Any) -> list[tuple[Any, str]]:
    """The configurations of a model and of its parts, from the outside in, each with the attention that it names."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    return [(c, c._attn_implementation) for c in configs.values() if hasattr(c, "_attn_implementation")]
