"""Documents of a unit with the same tokens are scored once.

The losses of a document do not depend on its neighbours, beyond the last bits (`inference.self_check`), so the
others get a copy.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from rho_score.inference.scored import Scored

Found = tuple[Scored, dict[int, str]]
"""The scores of documents, and by document number why one has none."""


def first_of_each(ids: Sequence[np.ndarray]) -> list[int]:
    """For each document the first one with the same token ids, which may be itself. ids: int32[n] each."""
    seen: dict[bytes, int] = {}
    return [seen.setdefault(document.tobytes(), i) for i, document in enumerate(ids)]


def score_once(ids: Sequence[np.ndarray], first: Sequence[int], score: Callable[[list[np.ndarray]], Found]) -> Found:
    """What `score` returns for all documents, although it is called with the first ones alone.

    first: the result of `first_of_each`.
    """
    firsts = [i for i, of in enumerate(first) if i == of]
    scored, failed = score([ids[i] for i in firsts])
    place = {i: at for at, i in enumerate(firsts)}
    at = [place[of] for of in first]
    everywhere = replace(
        scored,
        loss=[scored.loss[i] for i in at],
        signals={name: [values[i] for i in at] for name, values in scored.signals.items()},
        refused={i: scored.refused[of] for i, of in enumerate(at) if of in scored.refused},
    )
    return everywhere, {i: failed[of] for i, of in enumerate(at) if of in failed}
