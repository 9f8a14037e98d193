"""Weights in FP8 by torchao: what they need, and the settings that are handed to the library."""

from typing import Any

import torch

from rho_score.errors import InputError
from rho_score.models.directory import require_package

CAPABILITY = (8, 9)  # the first GPUs whose tensor cores multiply FP8: Ada; Hopper is 9.0


def check_fp8(dtype: torch.dtype, *, gpu: bool, here: bool) -> None:
    """Raises InputError unless `--quantize fp8` can be used.

    gpu: True if the model is loaded on a GPU. here: True if it is a GPU of this machine, which is
    then asked whether it computes in FP8.

    Raises:
        InputError: the package is not installed, the model is not loaded on a GPU that computes in
            FP8, or the dtype is not bfloat16, the only one that the library takes.
    """
    require_package("torchao", "--quantize fp8", extra="fp8")
    if dtype != torch.bfloat16:
        raise InputError(
            f"--quantize fp8 computes in bfloat16 between its products, not in {str(dtype).removeprefix('torch.')}. "
            "Leave --dtype out."
        )
    if not gpu:
        raise InputError(
            "--quantize fp8 needs a GPU that computes in FP8. Give --gpus-per-worker if the workers have one; without a GPU, "
            "give --quantize int8."
        )
    if here and torch.cuda.is_available() and (found := torch.cuda.get_device_capability()) < CAPABILITY:
        major, minor = found
        raise InputError(
            f"--quantize fp8 needs a GPU that computes in FP8, of compute capability {CAPABILITY[0]}.{CAPABILITY[1]} or "
            f"higher, but {torch.cuda.get_device_name()} has {major}.{minor}. Give --quantize int8, or leave it out."
        )


def fp8_settings() -> Any:
    """Returns the settings for a body in FP8 (E4M3): the weights, and the inputs of each product.

    Each row has a scale of its own. With one scale for all rows of an input, a token's loss would
    depend on its neighbours. The kernels are torch's own, so that no other package that happens to
    be installed changes a loss, and the compiler's settings stay as they are.
    """
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow
    from torchao.quantization.quantize_.common import KernelPreference
    from transformers import TorchAoConfig

    return TorchAoConfig(
        Float8DynamicActivationFloat8WeightConfig(
            granularity=PerRow(), kernel_preference=KernelPreference.TORCH, set_inductor_config=False
        )
    )
