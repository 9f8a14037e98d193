"""How a token's loss changes over checkpoints: the fitted change and the four categories of Rho-1.

Pure functions.
"""

from collections.abc import Sequence

import numpy as np

CATEGORIES = ("H-H", "L-H", "H-L", "L-L")
"""The categories by code: the loss stays high, rises, falls (learnt) or stays low."""


def fitted_change(losses: Sequence[np.ndarray], steps: Sequence[float]) -> np.ndarray:
    """End minus start of the least-squares line through each token's losses, nats, float64[n].

    losses: the tokens' losses at each checkpoint, float[n] each. steps: each checkpoint's place in
    the training.
    """
    x = np.asarray(steps, np.float64)
    weights = (x - x.mean()) / np.square(x - x.mean()).sum() * (x[-1] - x[0])
    change: np.ndarray = sum(w * loss.astype(np.float64) for w, loss in zip(weights, losses, strict=True))
    return change


def categories(delta: np.ndarray, last: np.ndarray, mean_last: float, *, rise: float, fall: float) -> np.ndarray:
    """Code of each token's category in `CATEGORIES`, int8[n]; -1 if the token has no fitted change.

    delta: fitted changes, nats. last: losses at the last checkpoint, nats. mean_last: the mean of
    all last losses. A loss rises or falls if it changes by more than `rise` or `fall` nats.
    """
    codes = np.where(last <= mean_last, 3, 0)
    codes = np.where(delta > rise, 1, np.where(delta < -fall, 2, codes))
    found: np.ndarray = np.where(np.isnan(delta), -1, codes).astype(np.int8)
    return found
