"""How many tokens a run with a server sends, and what they cost. For `rho-score plan`."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from rho_score.config import PlanConfig
from rho_score.corpus.content import columns_of
from rho_score.errors import InputError
from rho_score.inference.windows import overlap_of, windows
from rho_score.models.content import Encoded
from rho_score.models.directory import model_files
from rho_score.models.encode import encode_special
from rho_score.models.model_config import LONGEST_DEFAULT_CONTEXT, default_context, load_config
from rho_score.models.tokenizer import load_tokenizer
from rho_score.scoring.content_parts import check_hidden, prefix_read
from rho_score.scoring.copies import first_of_each
from rho_score.scoring.hidden import without_context
from rho_score.servers.check_cost import check_cost


class SentTokens:
    """Counts the tokens that the requests for documents are paid for: one request for each window.

    A request has the tokens of its window, with their overlap, the prefix, and what the server must
    generate.

    Raises:
        InputError: there is no model whose tokenizer could count, or an option does not fit.
    """

    def __init__(self, config: PlanConfig) -> None:
        if config.model is None:
            raise InputError("--price-per-million-tokens needs --model, whose tokenizer counts the tokens.")
        columns = columns_of(config)
        check_hidden(config, columns)
        self.tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
        default, vocabulary = _of_model(config.model, config.trust_remote_code)
        self._context = config.context or default
        self._overlap = overlap_of(config.overlap, self._context)
        self._hidden = config.hide_context
        ids = vocabulary or max(self.tokenizer.get_vocab().values()) + 1
        prefix = prefix_read(config, columns, self.tokenizer, ids)
        self._has_prefix = prefix is not None
        self.check, self._generates = check_cost(
            config.server_kind,
            self.tokenizer,
            partial(encode_special, self.tokenizer),
            prefix_id=prefix,
            context=self._context,
        )
        """Tokens of the check of the server at the start of a run."""

    def of(self, documents: Sequence[Encoded]) -> int:
        """The tokens for documents of one unit, of which those with the same tokens are sent once.

        More are sent if a request is made again, and fewer if a document is refused.
        """
        read = [one.ids for one in documents]
        if self._hidden:
            every = [np.ones(len(one.ids), bool) if one.counts is None else one.counts for one in documents]
            read = without_context(read, every)
        first = first_of_each(read)
        return sum(
            window.stop - window.start + self._has_prefix + self._generates
            for i in sorted(set(first))
            for window in windows(
                len(read[i]), context=self._context, overlap=self._overlap, has_prefix=self._has_prefix
            )
        )

    def __str__(self) -> str:
        beside = [*(["a prefix"] if self._has_prefix else []), *(["a generated token"] if self._generates else [])]
        each = f"; {' and '.join(beside)} in each request" if beside else ""
        return f"context {self._context:,}, overlap {self._overlap:,}{each}"


def _of_model(model: str, trust_remote_code: bool) -> tuple[int, int | None]:
    """The default context of a model and the number of its ids, as far as its config.json is there."""
    if not (model_files(model, weights=False).base / "config.json").exists():
        return LONGEST_DEFAULT_CONTEXT, None
    config = load_config(model, trust_remote_code=trust_remote_code, weights=False)
    return default_context(config), config.get_text_config().vocab_size
