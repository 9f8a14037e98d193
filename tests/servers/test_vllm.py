"""A real vLLM server on the CPU, beside a plain float32 forward of the same model. `make test-vllm` runs it."""

import os
import pydoc_data.topics
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from demo.model import base_model
from rho_score.config import ServerKind
from rho_score.models.encode import encode
from rho_score.models.load import ModelSource
from rho_score.scoring.server_settings import ServerSettings, checked_server
from rho_score.servers.about import find_served
from rho_score.servers.client import Client
from rho_score.servers.endpoint import Endpoint
from rho_score.servers.purse import FreePurse
from tests.oracle import load_float32, plain_losses

VENV = os.environ.get("RHO_SCORE_VLLM", "")
pytestmark = [
    pytest.mark.skipif(
        not (Path(VENV) / "bin/vllm").exists(), reason="RHO_SCORE_VLLM names no venv with vLLM; see make test-vllm"
    ),
    pytest.mark.timeout(1500),
]
CONTEXT, OVERLAP = 128, 32


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the demo's model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        f"{VENV}/bin/vllm", "serve", str(base_model()), "--served-model-name", "smollm2", "--dtype", "float32", "--enforce-eager",
        "--no-enable-prefix-caching", "--max-model-len", "1026", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    path = tmp_path_factory.mktemp("vllm") / "log"
    with path.open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **quiet}, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 900
        while True:
            assert server.poll() is None, path.read_text()[-3000:]
            assert time.monotonic() < end, path.read_text()[-3000:]
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Real text, cut into windows, and characters in several tokens."""
    topics = list(pydoc_data.topics.topics.values())
    return [topic[:900] for topic in topics[:5]] + [
        "東京の天気 🙂👩‍👩‍👧 naïve café",
        "a",
        "two  spaces\r\n\tand lines\n",
    ]


@pytest.fixture(scope="module")
def plain(texts: list[str]) -> list[np.ndarray]:
    """Their losses by a plain float32 forward."""
    loaded, tokenizer = load_float32(base_model()), AutoTokenizer.from_pretrained(base_model())
    return [
        plain_losses(loaded, ids.tolist(), prefix=tokenizer.bos_token_id, context=CONTEXT, overlap=OVERLAP)
        for ids in encode(tokenizer, texts)
    ]


@pytest.mark.parametrize("kind", ["vllm", "openai"])
def test_the_losses_are_those_of_a_plain_forward(
    kind: ServerKind, url: str, texts: list[str], plain: list[np.ndarray]
) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(base_model())
    client = Client(Endpoint.of(url), requests=4)
    served = find_served(client, kind, None)
    client.close()
    assert (served.model, served.max_tokens) == ("smollm2", 1026)
    settings = ServerSettings(
        model=ModelSource(model=str(base_model())), endpoint=Endpoint.of(url), kind=kind, served=served, requests=4,
        context=CONTEXT, overlap=OVERLAP, prefix_id=tokenizer.bos_token_id, signals=(),
    )  # fmt: skip
    scorer = checked_server(settings, tokenizer, None, FreePurse()).load()
    found = scorer.score(encode(tokenizer, texts))
    scorer.connection.client.close()
    assert kind == "openai" or not found.refused
    assert len(found.refused) < len(texts) / 2
    differences = [
        np.abs(a - b) for i, (a, b) in enumerate(zip(found.loss, plain, strict=True)) if i not in found.refused
    ]
    flat = np.concatenate(differences)
    assert flat.max() < 5e-3
    assert flat.mean() < 1e-4
