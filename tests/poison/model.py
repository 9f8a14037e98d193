"""A model directory that some documents are poison for; corpora for it, and what was scored of them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from rho_score.stores.score_set import ScoreSet
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


def write_texts(folder: Path, texts: Mapping[str, str]) -> Path:
    """A corpus of one shard: documents by their ids."""
    folder.mkdir()
    lines = [json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()]
    (folder / "a.jsonl").write_text("".join(lines))
    return folder


def losses_by_document(output: Path) -> dict[str, list[float]]:
    """Losses of every scored document, by its id."""
    scores = ScoreSet.open(str(output))
    return {row["doc_id"]: row["loss"] for unit in scores.units for row in scores.unit_table(unit.unit).to_pylist()}
