"""How many tokens a run with a server sends, and what they cost. For `rho-score plan`."""

from collections.abc import Iterable
from typing import Any

from rho_score.config import PlanConfig
from rho_score.config.corpus import ContentKind
from rho_score.errors import InputError
from rho_score.inference.windows import overlap_of, windows
from rho_score.models.directory import model_files
from rho_score.models.model_config import LONGEST_DEFAULT_CONTEXT, default_context, load_config
from rho_score.models.tokenizer import prefix_id


class SentTokens:
    """Counts the tokens of the requests for documents: each window, with its overlap and the prefix.

    Raises:
        InputError: there is no model whose tokenizer could count, or the overlap does not fit.
    """

    def __init__(self, config: PlanConfig) -> None:
        if config.model is None:
            raise InputError("--price-per-million-tokens needs --model, whose tokenizer counts the tokens.")
        self._context = config.context or _default_context(config.model, config.trust_remote_code)
        self._overlap = overlap_of(config.overlap, self._context)

    def of(self, lengths: Iterable[int], kind: ContentKind, tokenizer: Any) -> int:
        """The tokens that are sent for documents of these lengths, if no request is made twice."""
        has_prefix = kind not in ("ids", "messages", "pair") and prefix_id(tokenizer) is not None
        return sum(
            window.stop - window.start + has_prefix
            for n in lengths
            for window in windows(n, context=self._context, overlap=self._overlap, has_prefix=has_prefix)
        )

    def __str__(self) -> str:
        return f"context {self._context:,}, overlap {self._overlap:,}"


def _default_context(model: str, trust_remote_code: bool) -> int:
    if not (model_files(model, weights=False).base / "config.json").exists():
        return LONGEST_DEFAULT_CONTEXT
    return default_context(load_config(model, trust_remote_code=trust_remote_code, weights=False))
