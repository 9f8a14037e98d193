"""Makes a causal language model return losses of selected tokens in place of logits."""

import types
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils.generic import ModelOutput

from rho_score.errors import InputError
from rho_score.inference.loss import Head
from rho_score.stores.framing import IGNORED
from rho_score.training.head_loss import losses_of, weighted_loss
from rho_score.training.selection import TokenSelection

TOLERANCE = 1e-3
"""How far losses in blocks may be from those of documents alone, in nats, in float32."""


@dataclass
class TrainingOutput(ModelOutput):
    """What the forward pass of a model in training returns.

    loss: the sum of the losses of the selected tokens, by their weights if they have any, a scalar
    with gradients. statistics: see
    `TokenSelection.statistics`, float64[n]. token_loss: nats, float32[batch, block_size], 0 where
    there is no target.
    """

    loss: torch.Tensor | None = None
    statistics: torch.Tensor | None = None
    token_loss: torch.Tensor | None = None


def select_in_forward(model: Any, selection: TokenSelection) -> None:
    """Replaces the forward pass of a model of transformers, in place.

    The new one takes a batch of `collate_blocks` and returns a `TrainingOutput`. The loss is
    computed inside the forward pass, where a sharded head is whole.
    """

    def forward(
        self: Any,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        ref_loss: torch.Tensor,
        position_ids: torch.Tensor,
        noise: torch.Tensor | None = None,
        weight: torch.Tensor | None = None,
        **_: Any,
    ) -> TrainingOutput:
        hidden: torch.Tensor = body_of(self)(input_ids, position_ids=position_ids, use_cache=False).last_hidden_state
        head = Head.of(self)
        targets = labels[:, 1:]
        valid = targets != IGNORED
        rows = hidden[:, :-1][valid]
        wanted, reference = targets[valid], ref_loss[:, 1:][valid]
        if not self.training:
            losses = losses_of(rows, wanted, head)
            return TrainingOutput(token_loss=_placed(losses, valid, labels))
        if selection.rule.takes_all:
            weights = None if weight is None else weight[:, 1:][valid]
            total, losses = weighted_loss(*_at_least_one(rows, wanted, hidden, weights), head)
            losses = losses[: len(wanted)]
            chosen = selection.choose(losses, reference, None)
            return TrainingOutput(loss=total, statistics=selection.statistics(losses, chosen))
        losses = losses_of(rows, wanted, head)
        chosen = selection.choose(losses, reference, None if noise is None else noise[:, 1:][valid])
        total, _losses = weighted_loss(*_at_least_one(rows[chosen.mask], wanted[chosen.mask], hidden), head)
        return TrainingOutput(loss=total, statistics=selection.statistics(losses, chosen))

    model.forward = types.MethodType(forward, model)


def body_of(model: Any) -> Any:
    """The part of a causal language model that makes hidden states."""
    body = model.base_model
    return model.model if body is model else body


def _at_least_one(
    rows: torch.Tensor, wanted: torch.Tensor, hidden: torch.Tensor, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, targets and weights, 1 each if not given; without any rows, one row of weight 0.

    Every rank then has gradients for the same parameters, as data parallelism needs them.
    """
    if len(rows):
        return rows, wanted, torch.ones(len(rows), device=rows.device) if weights is None else weights
    return hidden[0, :1], wanted.new_zeros(1), torch.zeros(1, device=rows.device)


def _placed(losses: torch.Tensor, valid: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    found = torch.zeros(labels.shape, dtype=torch.float32, device=losses.device)
    found[:, 1:][valid] = losses
    return found


@torch.no_grad()
def check_isolation(model: Any, block: dict[str, Any], model_name: str) -> None:
    """Checks on a block of real data that documents in it do not see each other.

    Every document's losses in the block are compared with those of the document alone. Call it
    before `select_in_forward`.

    Raises:
        InputError: they differ, so that this model cannot be trained on packed blocks.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    ids, places = block["input_ids"][None].to(device), block["position_ids"][None].to(device)
    head = Head.of(model)
    body = body_of(model)
    together = body(ids, position_ids=places, use_cache=False).last_hidden_state[0]
    worst = 0.0
    start = 0
    for length in block["seq_lengths"]:
        if length > 1:
            part = slice(start, start + length)
            plain = model(ids[:, part], use_cache=False).logits[0, :-1].float()
            alone = torch.nn.functional.cross_entropy(plain, ids[0, part][1:], reduction="none")
            packed = losses_of(together[part][:-1], ids[0, part][1:], head)
            worst = max(worst, float((packed - alone).abs().max()))
        start += length
    model.train(was_training)
    loose = TOLERANCE if together.dtype == torch.float32 else 0.1
    if not worst <= loose:
        raise InputError(
            f"{model_name} cannot be trained on blocks of several documents: a token's loss differs by {worst:.3g} nats from "
            "that of its document alone, so documents see each other or the head is not the one that its config.json "
            "describes. Give --attention eager, or choose another model."
        )
