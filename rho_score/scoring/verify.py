"""`rho-score score --verify N`: compares the losses of a run with those of a plain float32 forward.

It does so on N documents of the corpus.
"""

import logging
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rho_score.corpus.documents import documents
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.inference.windows import windows
from rho_score.models.content import Encoded
from rho_score.models.load import ModelSource, load_model
from rho_score.models.model_config import load_config
from rho_score.models.tokenizer import load_tokenizer
from rho_score.scoring.hidden import without_context
from rho_score.scoring.server_settings import ServerSettings
from rho_score.scoring.settings import ScorerSettings, ScoringSettings

log = logging.getLogger(__name__)

KEPT = 0.6  # the share of tokens that the paper keeps
UNITS = 64  # most units that documents are taken from


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Absolute differences of losses, in nats, over the tokens of a few documents."""

    documents: int
    tokens: int
    mean: float
    p99: float
    largest: float
    flips: float
    """Share of tokens that change sides of the cut if the 60 % with the lowest loss are kept."""
    layout: str
    """The layout of the scorer's passes and its dtype, or the name of the served model."""

    def __str__(self) -> str:
        return (
            f"verified {self.documents:,} documents, {self.tokens:,} tokens ({self.layout}) against a plain float32 forward\n"
            f"mean difference {self.mean:.2e} nats, p99 {self.p99:.2e}, largest {self.largest:.2e}; "
            f"{self.flips:.3%} of top-{KEPT:.0%} decisions flip\n"
            "nothing was written"
        )


def compare(found: list[np.ndarray], expected: list[np.ndarray], layout: str) -> Comparison:
    """Returns the differences of two scorings of the same documents, float[n] each.

    Raises:
        InputError: no token has a loss.
    """
    ours, plain = np.concatenate(found), np.concatenate(expected)
    scored = ~np.isnan(plain)
    if not scored.any():
        raise InputError("none of the documents to verify has a token with a loss.")
    difference = np.abs(ours[scored] - plain[scored])
    return Comparison(
        documents=len(found),
        tokens=int(scored.sum()),
        mean=float(difference.mean()),
        p99=float(np.quantile(difference, 0.99)),
        largest=float(difference.max()),
        flips=float((_kept(ours[scored]) != _kept(plain[scored])).mean()),
        layout=layout,
    )


def _kept(losses: np.ndarray) -> np.ndarray:
    """Returns a mask of the lowest 60 % of the losses, bool[n]; ties go to the first."""
    kept = np.zeros(len(losses), bool)
    kept[np.argsort(losses, kind="stable")[: round(KEPT * len(losses))]] = True
    return kept


def verify(settings: ScoringSettings, *, gpu: bool) -> Comparison:
    """Scores `--verify` random documents as a run would, and with a plain float32 forward.

    Raises:
        InputError: the corpus has no document to verify, or a server refuses them all; or the
            weights to compare a server with are not there.
    """
    scorer, encoder = settings.scorer, settings.encoder
    source = scorer.model
    tokenizer = load_tokenizer(source.model, trust_remote_code=source.trust_remote_code)
    encoded = [one for one in encoder.encode(tokenizer, _random_texts(settings)) if isinstance(one, Encoded)]
    ids = [one.ids for one in encoded]
    counts = [np.ones(len(one.ids), bool) if one.counts is None else one.counts for one in encoded]
    if settings.config.hide_context:
        ids = without_context(ids, counts)
        counts = [np.ones(len(of), bool) for of in ids]
    ours = scorer.load(gpu=gpu, on_phase=log.debug)
    scored = ours.score(ids)
    if scored.refused:
        log.warning(
            "%d documents are left out, the first because %s", len(scored.refused), next(iter(scored.refused.values()))
        )
        good = [i for i in range(len(ids)) if i not in scored.refused]
        ids, counts = [ids[i] for i in good], [counts[i] for i in good]
    found = [loss for i, loss in enumerate(scored.loss) if i not in scored.refused]
    if not found:
        raise InputError("the server refuses every document that was to be verified. Verify more documents.")
    if isinstance(scorer, ServerSettings):
        load_config(source.model, trust_remote_code=source.trust_remote_code)  # are the weights there?
    layout = f"{ours.layout} in {scorer.dtype}" if isinstance(scorer, ScorerSettings) else str(ours.layout)
    del ours
    device = torch.device("cuda" if gpu else "cpu")
    whole = ModelSource(model=source.model, trust_remote_code=source.trust_remote_code, n_gpus=source.n_gpus)
    model = load_model(whole, torch.float32, device)
    plain = [
        plain_losses(model, document, context=scorer.context, overlap=scorer.overlap, prefix_id=scorer.prefix_id)
        for document in ids
    ]
    return compare(_counting(found, counts), _counting(plain, counts), layout)


def _counting(losses: list[np.ndarray], counts: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the losses with NaN for tokens that do not count."""
    return [np.where(which, of, np.nan) for of, which in zip(losses, counts, strict=True)]


@torch.inference_mode()
def plain_losses(model: Any, ids: np.ndarray, *, context: int, overlap: int, prefix_id: int | None) -> np.ndarray:
    """Returns the losses of one document, float32[n], in nats.

    They come from the whole logits of the model's own forward, window by window.
    """
    losses = np.full(len(ids), np.nan, np.float32)
    prefix = [] if prefix_id is None else [prefix_id]
    for start, first, stop in windows(len(ids), context=context, overlap=overlap, has_prefix=prefix_id is not None):
        tokens = torch.tensor([[*prefix, *ids[start : stop - 1].tolist()]], device=model.device)
        logits = model(tokens, use_cache=False).logits[0, -(stop - first) :].float()
        targets = torch.from_numpy(ids[first:stop].astype(np.int64)).to(logits.device)
        found = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        losses[first:stop] = found.cpu().numpy()
    return losses


def _random_texts(settings: ScoringSettings) -> list[str]:
    """Returns `--verify` texts from at most 64 units of the corpus, the same each time."""
    n, plan = settings.config.verify or 0, settings.plan
    draw = random.Random(0)
    units = draw.sample(plan.units, min(UNITS, len(plan.units)))
    root = Folder(plan.root)
    seen: list[str] = []
    passed = 0
    for unit in units:  # reservoir sampling: memory for n texts
        for document in documents(root, unit, settings.columns):
            if not document.text:
                continue
            passed += 1
            if len(seen) < n:
                seen.append(document.text)
            elif (place := draw.randrange(passed)) < n:
                seen[place] = document.text
    if not seen:
        raise InputError(
            f"there is no document with text in {len(units)} units of {plan.root}, so there is nothing to verify."
        )
    return seen
