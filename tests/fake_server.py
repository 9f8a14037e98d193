"""A server with a small real model that speaks the three protocols, and fails as servers and networks do.

Its log-probabilities come from the model's plain float32 forward, one request at a time.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from transformers import AutoTokenizer

from tests.oracle import load_float32
from tests.served import Served, cut_off

KINDS = ("429", "500", "503", "529", "drop", "cut off", "invalid", "delay", "duplicate", "swapped")


@dataclass
class Faults:
    """Which requests for log-probabilities fail, by seed.

    "duplicate" sends the last answer once more, and "swapped" an earlier one, in place of the answer that was asked for.
    """

    share: float = 0.0
    seed: int = 0
    kinds: Sequence[str] = KINDS
    fired: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def next(self) -> str:
        """The kind of the next fault, or empty."""
        if self._random.random() >= self.share:
            return ""
        kind = self._random.choice(list(self.kinds))
        self.fired[kind] += 1
        return kind

    def pick(self, answers: Sequence[bytes]) -> bytes:
        """One of these."""
        return self._random.choice(list(answers))


class FakeServer(Served):
    """The server, in a thread of its own.

    Args:
        directory: of the model, and of the tokenizer if no other is given.
        key: the API key that every request must have; empty for none.
        adds_bos: it puts the BOS token before each text, as servers with such a tokenizer do.
        least_tokens: the fewest tokens that a request may ask to be generated.
        refuse: what it refuses with status 400, by the ids.
        change: what becomes of the log-probabilities, by the ids.
    """

    name = "fake-server"

    def __init__(
        self,
        directory: Path,
        *,
        tokenizer: Path | None = None,
        names: Sequence[str] = ("tiny",),
        key: str = "",
        max_model_len: int | None = 66,
        adds_bos: bool = False,
        least_tokens: int = 0,
        refuse: Callable[[list[int]], bool] = lambda ids: False,
        change: Callable[[list[int], list[float]], list[float]] = lambda ids, logprobs: logprobs,
        faults: Faults | None = None,
    ) -> None:
        self.model, self.tokenizer = load_float32(directory), AutoTokenizer.from_pretrained(tokenizer or directory)
        self.names, self.key, self.max_model_len = names, key, max_model_len
        self.adds_bos, self.least_tokens, self.refuse, self.change = adds_bos, least_tokens, refuse, change
        self.faults = faults or Faults()
        self.asked: Counter[str] = Counter()
        self.n_tokens = 0
        """Tokens of all requests for log-probabilities, those to be generated included."""
        self._answers: list[bytes] = []
        super().__init__()

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.port}"

    def logprobs(self, ids: list[int]) -> list[float]:
        """The log-probabilities of the tokens from the second one on."""
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids])).logits[0].float()
        table = torch.log_softmax(logits, dim=-1)
        return self.change(ids, [table[i - 1, ids[i]].item() for i in range(1, len(ids))])

    def ranks(self, ids: list[int]) -> list[int]:
        """How many tokens are at least as likely as each from the second one on, as vLLM counts."""
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids])).logits[0].float()
        return [int((logits[i - 1] >= logits[i - 1, ids[i]]).sum()) for i in range(1, len(ids))]

    async def opened(self, stack: AsyncExitStack) -> web.Application:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._guard])
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/version", self._version)
        app.router.add_get("/server_info", self._version)
        app.router.add_post("/v1/completions", self._failing(self._completions))
        app.router.add_post("/generate", self._failing(self._generate))
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked[request.path] += 1
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            said = request.headers.get("Authorization", "none")
            return web.json_response({"error": {"message": f"the key {said} is wrong"}}, status=401)
        return await handler(request)

    async def _models(self, request: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "max_model_len": self.max_model_len} for name in self.names]
        return web.json_response({"object": "list", "data": data})

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "1.2.3"})

    def _failing(self, handler: Any) -> Any:
        async def fail_or_answer(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            fault = self.faults.next()
            if fault in ("429", "500", "503", "529"):
                headers = {"Retry-After": "0.01"} if fault in ("429", "503") else {}
                return web.json_response({"error": {"message": "a fault"}}, status=int(fault), headers=headers)
            if fault == "drop":
                return cut_off(request)
            if fault == "delay":
                await asyncio.sleep(0.3)
            status, answer = handler(body)
            content = json.dumps(answer).encode()
            if status != 200:
                return web.Response(status=status, body=content, content_type="application/json")
            earlier = self._answers
            if fault not in ("duplicate", "swapped"):
                self._answers = [*earlier[-20:], content]
            if fault == "cut off":
                response = web.StreamResponse(headers={"Content-Length": str(len(content))})
                await response.prepare(request)
                await response.write(content[: len(content) // 2])
                return cut_off(request)
            if fault == "invalid":
                content = content[: len(content) // 2]
            elif fault == "duplicate" and earlier:
                content = earlier[-1]
            elif fault == "swapped" and earlier:
                content = self.faults.pick(earlier)
            return web.Response(body=content, content_type="application/json")

        return fail_or_answer

    def _refusal(self, body: dict[str, Any], ids: list[int], generated: int) -> tuple[int, Any] | None:
        if "model" in body and body["model"] not in self.names:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        if not ids or max(ids) >= self.model.config.vocab_size:
            return 400, {"error": {"message": "Token id is out of vocabulary"}}
        if generated < self.least_tokens:
            return 400, {"error": {"message": "max_tokens must be at least 1"}}
        if self.max_model_len is not None and len(ids) + generated > self.max_model_len:
            return 400, {"error": {"message": f"This model's maximum context length is {self.max_model_len} tokens"}}
        if self.refuse(ids):
            return 400, {"error": {"message": "this text is not to the server's liking"}}
        self.n_tokens += len(ids) + generated
        return None

    def _ids(self, prompt: Any, *, special: bool) -> list[int]:
        if not isinstance(prompt, str):
            return list(prompt)
        ids = list(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        return [self.tokenizer.bos_token_id, *ids] if special and self.adds_bos else ids

    def _completions(self, body: dict[str, Any]) -> tuple[int, Any]:
        ids = self._ids(body["prompt"], special=body.get("add_special_tokens", True))
        if refusal := self._refusal(body, ids, body["max_tokens"]):
            return refusal
        logprobs = self.logprobs(ids)
        choice: dict[str, Any] = {"index": 0, "text": "x", "finish_reason": "length"}
        if body.get("echo"):
            texts, values = self._texts(ids), [None, *logprobs]
            extra = body["max_tokens"]
            choice["logprobs"] = {"tokens": [*texts, *["x"] * extra], "token_logprobs": [*values, *[-1.0] * extra]}
        else:
            entries = [
                {str(ids[i + 1]): {"logprob": max(value, -9999.0), "rank": rank, "decoded_token": "?"}}
                for i, (value, rank) in enumerate(zip(logprobs, self.ranks(ids), strict=True))
            ]
            choice |= {"prompt_logprobs": [None, *entries], "prompt_token_ids": ids}
        return 200, {"id": "cmpl-1", "object": "text_completion", "choices": [choice]}

    def _texts(self, ids: list[int]) -> list[str]:
        """Each token's text as vLLM writes it: a character in parts is written with its last part."""
        of = {c: b for b, c in _byte_characters().items()}
        special = self.tokenizer.all_special_tokens
        names = self.tokenizer.convert_ids_to_tokens(ids)
        return with_the_last([name.encode() if name in special else bytes(of[c] for c in name) for name in names])

    def _generate(self, body: dict[str, Any]) -> tuple[int, Any]:
        ids = list(body["input_ids"]) if "input_ids" in body else self._ids(body["text"], special=True)
        if refusal := self._refusal(body, ids, body["sampling_params"]["max_new_tokens"]):
            return refusal
        entries = [[value, token, None] for value, token in zip([None, *self.logprobs(ids)], ids, strict=True)]
        return 200, {"text": "", "meta_info": {"id": "1", "prompt_tokens": len(ids), "input_token_logprobs": entries}}


def _byte_characters() -> dict[int, str]:
    """The characters that a byte-level vocabulary writes for bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return bytes_to_unicode()


def with_the_last(pieces: list[bytes]) -> list[str]:
    """Texts of tokens, where a character in parts is written with its last part."""
    texts, waiting = [], b""
    for piece in pieces:
        waiting += piece
        try:
            texts.append(waiting.decode())
            waiting = b""
        except UnicodeDecodeError:
            texts.append("")
    return texts
