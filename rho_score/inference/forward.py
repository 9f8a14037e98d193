"""One forward pass over a few windows of tokens, in the layout that was proved for the model."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from transformers import DynamicCache

from rho_score.inference.attention import PACKED
from rho_score.inference.loss import Head, accumulate, token_statistics

# tokens x words of logits at a time; see docs/decisions/006
CPU_BLOCK, CUDA_BLOCK = (1024, 1024), (4096, 32768)


class Layout(NamedTuple):
    """How windows are laid out in a pass through the model.

    packed: one after the other without padding, with the attention of
    `rho_score.inference.attention`. padded: as a rectangle, padded on the right without a mask,
    with the model's own attention; a token of a causal model never sees what follows it. plain: one
    window at a time with whole logits, as the model's own `forward` computes them.
    """

    kind: Literal["packed", "padded", "plain"]
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.kind} compiled" if self.compiled else self.kind


class Input(NamedTuple):
    """A window: the tokens that the model reads, and the targets of its last positions.

    tokens: int64[n]. targets: int64[m], m <= n; the last m positions predict them.
    """

    tokens: np.ndarray
    targets: np.ndarray


class Forward:
    """A loaded model and the layout of its passes.

    A call returns float32[len(statistics), n_targets].
    """

    def __init__(self, model: Any, device: torch.device, *, entropy: bool, rank: bool, top_k: int = 0) -> None:
        self.model = model
        self._device = device
        self._entropy, self._rank, self._top_k = entropy, rank, top_k
        self._own_attention = _attention_of(model)
        self._blocks = [m for m in model.modules() if type(m).__name__ in (model._no_split_modules or ())]
        self._accumulate = accumulate
        self._layout = Layout("plain")

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the rows that a call returns, in order. Those of the likeliest words occur k times."""
        signals = [*(["entropy"] if self._entropy else []), *(["rank"] if self._rank else [])]
        return ("loss", *signals, *["top_log_p"] * self._top_k, *["top_ids"] * self._top_k)

    @property
    def vocabulary(self) -> int:
        """Number of words in the model's vocabulary."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def has_position_table(self) -> bool:
        """True if the model looks positions up in a table."""
        tables = (name for name, module in self.model.named_modules() if isinstance(module, torch.nn.Embedding))
        return any("pos" in name.rpartition(".")[2] or name.endswith("wpe") for name in tables)

    @property
    def layout(self) -> Layout:
        """The layout in use."""
        return self._layout

    def use_layout(self, layout: Layout) -> None:
        """Switches to another layout.

        Raises:
            ValueError, TypeError, AttributeError, NotImplementedError: the model cannot use it.
        """
        self._layout = layout
        for config, own in self._own_attention:
            config._attn_implementation = own
        if layout.kind == "packed":
            self.model.set_attn_implementation(PACKED)
            if self.model.config.get_text_config()._attn_implementation != PACKED:
                raise ValueError("its attention cannot be replaced")
        if layout.kind != "plain":
            self._head = Head.of(self.model)
        if layout.compiled and self._accumulate is accumulate:
            self._accumulate = torch.compile(accumulate, dynamic=True)
            for block in self._blocks:  # every layer runs the same code, which is compiled once
                block.compile(dynamic=True)

    def __call__(self, inputs: Sequence[Input], *, size: int | None = None) -> torch.Tensor:
        """Returns the statistics of every target, in the order of `inputs`.

        size: number of positions that a pack is padded to.
        """
        with self._eager_unless(self._layout.compiled):
            if self._layout.kind == "plain":
                return torch.cat([self._plain(one) for one in inputs], dim=1)
            targets = self._to_device(np.concatenate([one.targets for one in inputs]))
            hidden = self._packed(inputs, size) if self._layout.kind == "packed" else self._padded(inputs)
            return self._statistics(hidden, targets)

    def in_chunks(self, one: Input, chunk: int, on_tokens: Callable[[int], None]) -> torch.Tensor:
        """Returns the statistics of one window's targets, computed in pieces of `chunk` positions.

        A cache carries keys and values from piece to piece, so nothing is computed twice.
        `on_tokens` is called with the number of targets of each piece.
        """
        with self._eager_unless(False):  # compiled code would be specialised to each layer's cache
            return self._in_chunks(one, chunk, on_tokens)

    def _in_chunks(self, one: Input, chunk: int, on_tokens: Callable[[int], None]) -> torch.Tensor:
        cache = DynamicCache(config=self.model.config)
        n, skip = len(one.tokens), len(one.tokens) - len(one.targets)
        found = []
        for at in range(0, n, chunk):
            stop = min(at + chunk, n)
            ids = self._to_device(one.tokens[at:stop])[None]
            extra = {}
            if self._layout.kind == "packed":
                extra = self._lengths([stop - at])
                extra["position_ids"] = torch.arange(at, stop, device=self._device)[None]
            hidden = self._body(ids, use_cache=True, past_key_values=cache, **extra)[0]
            if stop > skip:
                first = max(at, skip)
                targets = self._to_device(one.targets[first - skip : stop - skip])
                found.append(self._statistics(hidden[first - at :], targets))
                on_tokens(len(targets))
        return torch.cat(found, dim=1)

    def _packed(self, inputs: Sequence[Input], size: int | None) -> torch.Tensor:
        """Returns the last hidden states of the targets of packed windows, shape (n_targets, D)."""
        lengths = [len(one.tokens) for one in inputs]
        n = sum(lengths)
        positions = [np.arange(length) for length in lengths]
        if size is not None and size > n:
            # The padding is a sequence of its own, whose results are dropped. Its positions are all
            # 0, because it may be longer than the context.
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
        values, words = log_p.topk(self._top_k, dim=1)
        columns += [*values.unbind(dim=1), *words.float().unbind(dim=1)]
        return torch.stack(columns)

    def _eager_unless(self, compiled: bool) -> AbstractContextManager[None]:
        """Returns a context in which compiled code runs eagerly, unless `compiled` is true."""
        # Where nothing is compiled, the compiler is not imported.
        if compiled or self._accumulate is accumulate:
            return nullcontext()
        stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
        return stance

    def _body(self, ids: torch.Tensor, **extra: Any) -> torch.Tensor:
        body = self.model.base_model
        if body is self.model:
            # In a text model taken out of a larger one, the library looks for the body under a
            # wrong name.
            body = self.model.model
        hidden: torch.Tensor = body(ids, **extra).last_hidden_state
        return hidden

    def _statistics(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        weight = self._head.weight
        # The head may be on another GPU.
        hidden, targets = hidden.to(weight.device), targets.to(weight.device)
        block_tokens, block_words = CPU_BLOCK if self._device.type == "cpu" else CUDA_BLOCK
        return token_statistics(
            hidden,
            targets,
            self._head,
            entropy=self._entropy,
            rank=self._rank,
            top_k=self._top_k,
            block_tokens=block_tokens,
            block_words=block_words,
            accumulate=self._accumulate,
        )

    def _lengths(self, lengths: Sequence[int]) -> dict[str, Any]:
        """Returns the arguments that Hugging Face models pass on to variable-length attention."""
        ends = self._to_device(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        longest = max(lengths)
        return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}

    def _to_device(self, values: np.ndarray) -> torch.Tensor:
        """Copies values to the device from pinned memory, without waiting for the GPU."""
        tensor = torch.from_numpy(values if values.dtype == np.int32 else values.astype(np.int64, copy=False))
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)


def _attention_of(model: Any) -> list[tuple[Any, str]]:
    """Returns the configurations of a model and of its parts, each with the attention it names."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    return [(c, c._attn_implementation) for c in configs.values() if hasattr(c, "_attn_implementation")]
