"""A lower bound of the divergence of two distributions of which only the likeliest words are known. Pure functions."""

import numpy as np

# The probability of the rest is 1 minus that of the shared words, which are stored rounded. A rest
# below this cannot be told from zero, and is taken to be this large, which only lowers the bound.
REST_FLOOR = {16: 2.0**-10, 32: 2.0**-20}
_ROWS = 1 << 15  # rows that are compared at a time; each takes a few times k * k bytes


def kl_lower_bound(
    p_ids: np.ndarray,
    p_log: np.ndarray,
    q_ids: np.ndarray,
    q_log: np.ndarray,
    *,
    targets: np.ndarray | None = None,
    p_loss: np.ndarray | None = None,
    q_loss: np.ndarray | None = None,
    floor: float = REST_FLOOR[32],
) -> np.ndarray:
    """A lower bound of KL(p || q) for each row, nats, float64[n].

    C are the words whose probability is known under both, r = 1 - sum of C is the rest under each:

        sum over C of p log(p / q)  +  r_p log(r_p / r_q)

    This is the divergence after all other words are put together as one, so it is at most the true
    one, and equal to it exactly if p / q is the same for all words outside C. There is no upper
    bound: q may be as small as it likes outside its own likeliest words.

    p_ids, q_ids: different words of each row, int[n, k]; the two may have another k each. p_log,
    q_log: their log-probabilities, nats, float[n, k]. targets, p_loss, q_loss: a word of each row
    whose negative log-probability is known under both, int[n] and float[n] each; it belongs to C
    too. floor: the smallest r_q, see `REST_FLOOR`.
    """
    n = len(p_ids)
    bound = np.empty(n)
    for at in range(0, n, _ROWS):
        part = slice(at, at + _ROWS)
        shared = p_ids[part, :, None] == q_ids[part, None, :]
        p, log_p = _known(shared.any(axis=2), p_log[part])
        q_of_p = np.where(shared, q_log[part, None, :].astype(np.float64), -np.inf).max(axis=2)
        terms, p_sum = _terms(p, log_p, q_of_p)
        q_sum = np.exp(q_of_p).sum(axis=1)
        if targets is not None and p_loss is not None and q_loss is not None:
            fresh = ~(shared.any(axis=2) & (p_ids[part] == targets[part, None])).any(axis=1)
            log_target, q_target = -p_loss[part].astype(np.float64), -q_loss[part].astype(np.float64)
            more = np.where(fresh, np.exp(log_target), 0.0)
            terms, p_sum = terms + more * (log_target - q_target), p_sum + more
            q_sum += np.where(fresh, np.exp(q_target), 0.0)
        p_rest, q_rest = np.maximum(1 - p_sum, 0.0), np.maximum(1 - q_sum, floor)
        rest = np.where(p_rest > 0, p_rest * np.log(np.where(p_rest > 0, p_rest, 1.0) / q_rest), 0.0)
        bound[part] = np.maximum(terms + rest, 0.0)
    return bound


def _known(inside: np.ndarray, log: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities, 0 outside, and the log-probabilities of words, float64[n, k] each."""
    log = log.astype(np.float64)
    return np.where(inside, np.exp(log), 0.0), log


def _terms(p: np.ndarray, log_p: np.ndarray, log_q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of p log(p / q) and of p over the words with p > 0, float64[n] each."""
    ratio = np.where(p > 0, log_p - np.where(np.isfinite(log_q), log_q, 0.0), 0.0)
    return (p * ratio).sum(axis=1), p.sum(axis=1)
