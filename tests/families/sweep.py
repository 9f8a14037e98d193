"""Every causal family of the installed transformers through the scorer, beside a plain float32 forward of one document at a time."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from rho_score.errors import InputError
from rho_score.inference.forward import Way
from rho_score.inference.scorer import Scorer
from rho_score.inference.self_check import examine, make_documents, prove
from rho_score.scoring.verify import plain_losses
from tests.families.tiny import CONTEXT, VOCABULARY, tiny_config, tiny_model

FAMILIES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
WITH_IMAGES = sorted(set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES) - set(FAMILIES))
PREFIX, OVERLAP = 1, 40
TOKENS = (300, 3, 200, 145, 50, CONTEXT - 1, 700)  # of the documents; the last is cut into windows
PASS, CHUNK = 1024, 100  # tokens in a pass: all of a window, and a third of it
SAME = 2e-3  # nats, the largest difference of a token that is right: the dtype is float32, the weights are random and large


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the scorer did with a family."""

    family: str
    way: str
    """The way that it took by itself; "refused", or "not built" where transformers makes no small model of the family that reads text alone."""
    chunks: bool = False
    """Windows longer than a pass go in chunks."""
    also: tuple[str, ...] = ()
    """Other fast ways that its proof lets pass."""
    alone: float = 0.0
    """Largest difference to the plain forward, nats: a document by itself."""
    company: float = 0.0
    """The same among others, in every way that the proof lets pass, and in chunks."""
    reason: str = ""
    """Why it is refused or not built, or what the warnings say."""

    @property
    def is_scored(self) -> bool:
        """Whether it gave losses."""
        return self.way not in ("refused", "not built")

    @property
    def is_wrong(self) -> bool:
        """Whether a loss is wrong that no warning tells of."""
        return not max(self.alone, self.company) <= SAME


def sweep(family: str, folder: Path, **overrides: Any) -> Row:
    """Score random documents with a tiny model of the family. overrides: of its configuration."""
    with _warnings_kept() as said:
        try:
            model = tiny_model(tiny_config(family, **overrides))
            with torch.inference_mode():
                model(torch.randint(3, VOCABULARY, (1, TOKENS[0])), use_cache=False)
            model.save_pretrained(folder)
        except Exception as error:  # whatever keeps transformers from making one
            return Row(family=family, way="not built", reason=_line(error, folder))
        try:
            scorer = _scorer(folder, PASS)
        except Exception as error:  # a run ends with it, before it scores anything
            return Row(family=family, way="refused", reason=_line(error, folder))
        told = [line.replace(str(folder), "it") for line in said]
        ids = _documents()
        cut = {"context": CONTEXT, "overlap": OVERLAP, "prefix_id": PREFIX}
        expected = [plain_losses(model, document, **cut) for document in ids]
        alone = max(_largest(scorer.score_documents([one]), [loss]) for one, loss in zip(ids, expected, strict=True))
        company = _largest(scorer.score_documents(ids), expected)
        way, chunks, also = scorer.way, scorer.passes.chunked, []
        for other in (Way("packed"), Way("padded")):
            if passed := _proved(scorer, other):
                also += [str(other)] if other != way else []
                company = max(company, _largest(scorer.score_documents(ids), expected))
            if passed and scorer.passes.chunked:
                with scorer.passes.of(CHUNK, chunked=True):
                    company = max(company, _largest(scorer.score_documents(ids), expected))
    return Row(
        family=family,
        way=str(way),
        chunks=chunks,
        also=tuple(also),
        alone=alone,
        company=company,
        reason="; ".join(told),
    )


def _scorer(folder: Path, batch_tokens: int) -> Scorer:
    return Scorer(
        str(folder), dtype="float32", context=CONTEXT, overlap=OVERLAP, prefix_id=PREFIX, batch_tokens=batch_tokens
    )


def _proved(scorer: Scorer, way: Way) -> bool:
    """Whether the proof lets this way pass; the scorer takes it then."""
    passes = scorer.passes
    passes.forward.go(Way("plain"))
    documents = make_documents(passes)
    if examine(passes, documents, scorer.dtype, "it"):
        return False
    proved = prove(passes, documents, [way], scorer.dtype, "it")
    assert proved is not None
    passes.forward.go(proved[0])
    passes.chunked = proved[1]
    return proved[0] == way


def _documents() -> list[np.ndarray]:
    random = np.random.default_rng(7)
    return [random.integers(3, VOCABULARY, n).astype(np.int32) for n in TOKENS]


def _largest(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Largest absolute difference; infinite where one of the two has no loss and the other has."""
    ours, plain = np.concatenate(found), np.concatenate(expected)
    if (np.isnan(ours) != np.isnan(plain)).any():
        return float("inf")
    return float(np.nanmax(np.abs(ours - plain)))


def _line(error: Exception, folder: Path) -> str:
    text = " ".join(str(error).split())
    text = text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
    return text.replace(str(folder), "it")[:300]


@contextmanager
def _warnings_kept() -> Iterator[list[str]]:
    """The warnings that rho_score logs meanwhile."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("rho_score")
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        log.removeHandler(handler)
