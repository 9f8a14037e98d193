"""What scoring a few documents gives, whoever computed it: a loaded model or a server."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The result of a call: lists with one array per document, in order."""

    loss: list[np.ndarray]
    """float32[n], nats. NaN: the first token without a prefix, or a loss that is not finite."""
    signals: dict[str, list[np.ndarray]]
    """float32[n] per document. entropy: of the distribution that predicts the token, in nats. rank:
    0 if the token is the argmax of that distribution. top_ids, top_log_p: the likeliest tokens of
    that distribution and their log-probabilities in nats, the likeliest first, float32[n, k]."""
    rescored: int
    """Number of documents that overflowed in the dtype and were scored again in a wider one."""
    positions: int
    """Number of positions that went through the model, padding included."""
    padding: int
    """Number of positions of padding among them."""
    refused: dict[int, str] = field(default_factory=dict)
    """Why a document has no losses, by its place, where a server gives none for it."""
