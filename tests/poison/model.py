"""A model directory that some documents are poison for."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from tests.conftest import save_model
from tests.poison.poisoned import PoisonedConfig


def save_poisoned_model(folder: Path, tokenizer: PreTrainedTokenizerFast, deeds: Mapping[str, str]) -> None:
    """The small Llama with code of its own. deeds: what a run of a letter does."""
    save_model(folder, 1, tokenizer)
    shutil.copy(Path(__file__).with_name("poisoned.py"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": PoisonedConfig.model_type,
        "architectures": ["PoisonedForCausalLM"],
        "auto_map": {"AutoConfig": "poisoned.PoisonedConfig", "AutoModelForCausalLM": "poisoned.PoisonedForCausalLM"},
        "deeds": {str(tokenizer.convert_tokens_to_ids(letter)): deed for letter, deed in deeds.items()},
    }
    (folder / "config.json").write_text(json.dumps(config))
