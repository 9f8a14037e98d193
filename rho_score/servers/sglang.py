"""SGLang: `POST /generate` with `input_ids` and `return_logprob`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rho_score.files.json import JsonObject
from rho_score.servers.protocol import Answer, Protocol, WrongAnswerError, as_logprob, check_ids, field


class Sglang(Protocol):
    """Ids are sent, and come back with their log-probabilities. The server has one model."""

    path = "/generate"

    def body(self, model: str, ids: Sequence[int]) -> JsonObject:
        return {"input_ids": list(ids), **self._options()}

    def text_body(self, model: str, text: str) -> JsonObject:
        return {"text": text, **self._options()}

    def _options(self) -> JsonObject:
        return {
            "sampling_params": {"max_new_tokens": self.generates, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": 0,
        }

    def read(self, content: Any, ids: Sequence[int]) -> Answer:
        entries = _entries(content)
        check_ids([entry[1] for entry in entries], ids)
        if entries and entries[0][0] is not None:
            raise WrongAnswerError("the first token has a log-probability, though nothing stands before it")
        logprobs = np.full(len(ids), np.nan)
        for i in range(1, len(ids)):
            logprobs[i] = as_logprob(entries[i][0], i)
        return Answer(logprobs)

    def read_ids(self, content: Any) -> list[int]:
        return [entry[1] for entry in _entries(content)]


def _entries(content: Any) -> list[Sequence[Any]]:
    """The (log-probability, id, text) of each token."""
    found = field(field(content, "meta_info"), "input_token_logprobs")
    if not isinstance(found, list) or not all(isinstance(entry, list) and len(entry) >= 2 for entry in found):
        raise WrongAnswerError("input_token_logprobs is no list of log-probabilities with their ids")
    return found
