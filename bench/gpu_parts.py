"""What `make gpu` runs, in the order of its worth, as data."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

TYPICAL_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """A command, and where it leaves its result: `{result}` in it becomes the file's path."""

    name: str
    about: str
    command: Sequence[str]
    limit_s: float
    """It is ended after so many seconds; what it has written by then counts."""
    least_s: float = TYPICAL_S
    """It is not begun with less time left."""
    result: Literal["rows", "junit"] = "rows"


def all_parts(vllm_python: str | None = None) -> list[Part]:
    """The parts, the most telling first."""
    short = {"135M": 400_000, "1B": 400_000, "8B": 250_000}
    return [
        _tests("tests", "tests of the scorer, of FP8 and of training", "test_cuda.py", "test_fp8.py", "test_train.py"),
        _scoring("1B", short["1B"], "contenders", "cuda", limit_s=240),
        _fp8("1B", short["1B"], limit_s=240),
        _scoring("8B", short["8B"], "contenders", limit_s=300),
        _fp8("8B", short["8B"], limit_s=300),
        _scoring("135M", short["135M"], "contenders", "same", "dtypes", "cuda", limit_s=240),
        _job(2_000_000),
        Part(
            name="training",
            about="training with and without selection",
            command=_module("bench.training", "steps", "--rounds", "7", "--rows", "8", "--block-size", "2048"),
            limit_s=180,
        ),
        *([_vllm(shape, short[shape], vllm_python) for shape in ("1B", "8B", "135M")] if vllm_python else []),
        _fp8("135M", short["135M"], limit_s=180),
        _tests("tests of jobs", "tests of whole jobs, some of which kill the GPU's workers", "test_job.py"),
    ]


def _module(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments, "--json", "{result}"]


def _tests(name: str, about: str, *files: str) -> Part:
    command = [sys.executable, "-m", "pytest", *(f"tests/gpu/{file}" for file in files), "--junitxml", "{result}"]
    return Part(name=name, about=about, command=command, limit_s=300, result="junit")


def _shape(shape: str) -> list[str]:
    return [] if shape == "135M" else ["--shape", shape]


def _scoring(shape: str, n_tokens: int, *parts: str, limit_s: float) -> Part:
    options = ["--tokens", str(n_tokens), "--skip", "float32", "lm-eval", "--only", *parts]
    return Part(
        name=f"scoring {shape}",
        about="the scorer beside the bare compiled body",
        command=_module("bench.scoring", *_shape(shape), *options),
        limit_s=limit_s,
    )


def _fp8(shape: str, n_tokens: int, *, limit_s: float) -> Part:
    return Part(
        name=f"FP8 {shape}",
        about="--quantize fp8 beside float16: speed, memory, error",
        command=_module("bench.scoring", *_shape(shape), "--tokens", str(n_tokens), "--only", "fp8"),
        limit_s=limit_s,
    )


def _vllm(shape: str, n_tokens: int, python: str) -> Part:
    options = ["--tokens", str(n_tokens), "--vllm-python", python, "--only", "vllm"]
    return Part(
        name=f"vLLM {shape}",
        about="vLLM's prompt_logprobs",
        command=_module("bench.scoring", *_shape(shape), *options),
        limit_s=240,
        least_s=90,
    )


def _job(n_tokens: int) -> Part:
    options = ["--tokens", str(n_tokens), "--unit-bytes", "200000", "--only", "job"]
    return Part(
        name="job",
        about="a whole job with SmolLM2-135M",
        command=_module("bench.scoring", *options),
        limit_s=240,
        least_s=90,
    )
