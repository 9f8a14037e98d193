"""What a selection keeps of one unit: counts by group, and bits per byte."""

import numpy as np
import pyarrow as pa

from rho_score.ranking.histogram import Group
from rho_score.ranking.scores import UnitScores, run_sums
from rho_score.stores.counts import GroupCounts, group_codes


def count_groups(scores: UnitScores, mask: np.ndarray) -> dict[Group, GroupCounts]:
    """The counts of each group in a unit. mask: True for each kept token, bool[n_tokens]."""
    kept = run_sums(mask, scores.lengths).astype(np.int64)
    missing = np.isnan(scores.tokens)
    scored = scores.lengths - run_sums(missing, scores.lengths).astype(np.int64) if missing.any() else scores.lengths
    sums = {"bytes": np.zeros(len(kept), np.int64), "ref_nats": np.zeros(len(kept)), "base_nats": np.zeros(len(kept))}
    if scores.n_bytes is not None:
        sums["bytes"] = scores.doc_bytes
        sums |= {f"{model}_nats": nats for model, nats in _document_nats(scores).items()}
    owners, names = group_codes(scores.groups)
    counts = {}
    for i, name in enumerate(names):
        mine = owners == i
        counts[name] = GroupCounts(
            documents=int(mine.sum()),
            documents_kept=int((kept[mine] > 0).sum()),
            tokens=int(scores.lengths[mine].sum()),
            tokens_scored=int(scored[mine].sum()),
            tokens_kept=int(kept[mine].sum()),
            documents_unaligned=0 if scores.unaligned is None else int(scores.unaligned[mine].sum()),
            bytes=int(sums["bytes"][mine].sum()),
            ref_nats=float(sums["ref_nats"][mine].sum()),
            base_nats=float(sums["base_nats"][mine].sum()),
        )
    return counts


def _document_nats(scores: UnitScores) -> dict[str, np.ndarray]:
    """Each document's loss over its scored tokens by "ref" and "base", nats, float64[n_docs]."""
    present = ~np.isnan(scores.tokens)
    losses = {"ref": scores.ref_loss, "base": scores.base_loss}
    return {
        model: run_sums(np.where(present, loss, 0), scores.lengths)
        for model, loss in losses.items()
        if loss is not None
    }


def byte_columns(scores: UnitScores) -> dict[str, pa.Array]:
    """Columns with the bytes of each document's scored tokens and their bits per byte.

    There are bits per byte under each model, null in a document without bytes.
    """
    n_bytes = scores.doc_bytes
    columns = {"bytes": pa.array(n_bytes)}
    for model, nats in _document_nats(scores).items():
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = nats / np.log(2) / n_bytes
        columns[f"{model}_bits_per_byte"] = pa.array(rate.astype(np.float32), pa.float32(), mask=n_bytes == 0)
    return columns
