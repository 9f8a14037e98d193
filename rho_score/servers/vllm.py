"""vLLM: `POST /v1/completions` with token ids, `prompt_logprobs` and `return_token_ids`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from rho_score.config import Signal
from rho_score.files.json import JsonObject
from rho_score.servers.protocol import Answer, Protocol, WrongAnswerError, as_logprob, check_ids, field, only


class Vllm(Protocol):
    """Ids are sent, and come back with their log-probabilities and ranks."""

    path = "/v1/completions"
    signals: ClassVar[tuple[Signal, ...]] = ("rank",)
    generates = 1

    def body(self, model: str, ids: Sequence[int]) -> JsonObject:
        return self._about(model, list(ids))

    def text_body(self, model: str, text: str) -> JsonObject:
        return self._about(model, text)

    def _about(self, model: str, prompt: list[int] | str) -> JsonObject:
        return {
            "model": model,
            "prompt": prompt,
            "max_tokens": self.generates,
            "temperature": 0,
            "prompt_logprobs": 0,
            "return_token_ids": True,
            "add_special_tokens": False,
        }

    def read(self, content: Any, ids: Sequence[int]) -> Answer:
        choice = only(field(content, "choices"), "choices")
        check_ids(field(choice, "prompt_token_ids"), ids)
        found = field(choice, "prompt_logprobs")
        if not isinstance(found, list) or len(found) != len(ids):
            n = len(found) if isinstance(found, list) else 0
            raise WrongAnswerError(f"{len(ids)} tokens were sent, but {n} log-probabilities came back")
        if found and found[0] is not None:
            raise WrongAnswerError("the first token has a log-probability, though nothing stands before it")
        logprobs, ranks = np.full(len(ids), np.nan), np.full(len(ids), np.nan)
        for i in range(1, len(ids)):
            entry = field(found[i], str(ids[i])) if found[i] is not None else {}
            logprobs[i] = as_logprob(entry.get("logprob"), i)
            ranks[i] = _rank(entry.get("rank"), i)
        return Answer(logprobs, ranks)

    def read_ids(self, content: Any) -> list[int]:
        return list(field(only(field(content, "choices"), "choices"), "prompt_token_ids"))


def _rank(value: Any, at: int) -> float:
    """The rank from 0 on; vLLM counts from 1."""
    if not isinstance(value, int) or value < 1:
        raise WrongAnswerError(f"token {at} has the rank {value!r}, which is no whole number from 1 on")
    return value - 1
