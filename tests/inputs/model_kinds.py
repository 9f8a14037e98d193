"""Models and tokenizers: kind, what is done to a good model's directory, answer."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.inputs.kinds import in_words, refused

WEIGHTS = "model.safetensors"
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 400}


@dataclass(frozen=True)
class ModelKind:
    """A kind of model directory. `words`: what the refusal says; none where the model is scored with."""

    name: str
    spoil: Callable[[Path], None]
    words: tuple[str, ...] = ()
    at_load: bool = False
    """Found by the worker as it loads the model: exit code 1, no unit scored; else exit code 2, nothing run."""

    @property
    def page_line(self) -> str:
        """A line of the page's table: kind, exit code, answer."""
        if not self.words:
            return f"| {self.name} | 0 | scored |"
        return f"| {self.name} | {1 if self.at_load else 2} | {in_words(refused(*self.words))} |"


def without(*patterns: str) -> Callable[[Path], None]:
    """Files taken away."""

    def spoil(folder: Path) -> None:
        for pattern in patterns:
            for path in folder.glob(pattern):
                path.unlink()

    return spoil


def written(name: str, content: str | bytes) -> Callable[[Path], None]:
    """A file with other content."""

    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def changed(name: str, **values: Any) -> Callable[[Path], None]:
    """A JSON file with other values; None takes a key away."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text()) | values
        kept = {key: value for key, value in content.items() if value is not None}
        (folder / name).write_text(json.dumps(kept))

    return spoil


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """The weights changed in place."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return spoil


def _no_prefix(folder: Path) -> None:
    changed("config.json", bos_token_id=None, eos_token_id=None)(folder)
    _no_names(folder)


def _no_names(folder: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            changed(name, bos_token=None, eos_token=None, pad_token=None)(folder)


def _cut_off(folder: Path) -> None:
    written(WEIGHTS, (folder / WEIGHTS).read_bytes()[:-100])(folder)


def _pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def _model(config: Any, kind: Any, **options: Any) -> Callable[[Path], None]:
    """Another model in the place of the good one, with the good one's tokenizer."""

    def spoil(folder: Path) -> None:
        without("*.safetensors", "config.json", "generation_config.json")(folder)
        torch.manual_seed(1)
        kind(config).save_pretrained(folder, **options)

    return spoil


def _llama(**changes: Any) -> LlamaConfig:
    options = {"num_hidden_layers": 2, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1}
    return LlamaConfig(**(SMALL | options | changes))


def _one_of_its_files_missing(folder: Path) -> None:
    _model(_llama(), LlamaForCausalLM, max_shard_size="20KB")(folder)
    max(folder.glob("*.safetensors")).unlink()


def _own_model_code(folder: Path) -> None:
    changed(
        "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    )(folder)
    written("mine.py", "raise SystemExit('this was run')")(folder)


def _own_tokenizer_code(folder: Path) -> None:
    changed("tokenizer_config.json", tokenizer_class="Mine", auto_map={"AutoTokenizer": ["mine.Tokenizer", None]})(
        folder
    )
    written("mine.py", "raise SystemExit('this was run')")(folder)


def _everything_gone(folder: Path) -> None:
    without("*")(folder)
    folder.rmdir()


def _nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"][:] = float("nan")


BERT = BertConfig(**SMALL, num_hidden_layers=1)
T5 = T5Config(vocab_size=400, d_model=32, d_ff=32, num_layers=1, num_heads=2, d_kv=16)
NOT_CAUSAL = "not a causal language model; it gives no token losses"
OWN_CODE = ("brings its own Python code, which runs only if you allow it", "--trust-remote-code")


def _special_beyond(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]})
    assert tokenizer.convert_tokens_to_ids("<image_soft_token>") == SMALL["vocab_size"]
    tokenizer.save_pretrained(folder)


def _left_over_index(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    written("model.safetensors.index.json", json.dumps(index))(folder)


def _renamed(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "weights.safetensors")


def _gguf(folder: Path) -> None:
    without("*.safetensors", "config.json")(folder)
    written("model-q4.gguf", b"GGUF")(folder)


def _vision_language(folder: Path) -> None:
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = LlavaConfig(
        text_config=_llama(), vision_config=vision, bos_token_id=0, eos_token_id=1, image_token_index=399
    )
    _model(config, LlavaForConditionalGeneration)(folder)


MODELS = [
    ModelKind("head tied to the embeddings", lambda folder: None),
    ModelKind("head of its own", _model(_llama(tie_word_embeddings=False), LlamaForCausalLM)),
    ModelKind("tokenizer without BOS, EOS and padding: the first token of a document has no loss", _no_prefix),
    ModelKind("tokenizer without names for BOS and EOS, which config.json names", _no_names),
    ModelKind("weights beyond those that the model has", weights(lambda tensors: tensors.update(other=torch.ones(2)))),
    ModelKind("a generation_config.json that says nothing sensible", written("generation_config.json", '{"temperature": "hot", "do_sample": 3}')),
    ModelKind("the index of a model in several files, left over beside a whole one", _left_over_index),
    ModelKind("a vision-language model, of which the text part is scored", _vision_language),
    ModelKind("no such directory", _everything_gone, ("there is no directory", "{model}", "Give a Hugging Face id or a directory")),
    ModelKind("an empty directory", without("*"), ("there is no readable config.json in", "{model}")),
    ModelKind("no config.json", without("config.json"), ("there is no readable config.json in", "{model}", "model_type")),
    ModelKind("config.json that is not JSON", written("config.json", "{"), ("there is no readable config.json in", "{model}", "not a valid JSON file")),
    ModelKind("config.json that holds a list", written("config.json", "[]"), ("there is no readable config.json in", "{model}")),
    ModelKind("config.json with a value of another type", changed("config.json", hidden_size="wide"), ("there is no readable config.json in", "{model}", "hidden_size")),
    ModelKind("a kind of model that transformers does not know", changed("config.json", model_type="nosuch"), ("there is no readable config.json in", "{model}", "nosuch")),
    ModelKind("no weights", without("*.safetensors"), ("there are no *.safetensors in", "{model}", "Pickled weights are never loaded: convert them first.")),
    ModelKind("pickled weights only", _pickled, ("there are no *.safetensors in", "{model}", "Pickled weights are never loaded: convert them first.")),
    ModelKind("weights under another name only", _renamed, ("{model} holds weights.safetensors, but neither model.safetensors nor",)),
    ModelKind("GGUF only", _gguf, ("{model} holds GGUF files (model-q4.gguf) and no config.json", "safetensors")),
    ModelKind("weights that are cut off", _cut_off, ("model.safetensors is not a readable safetensors file", "Fetch it again.")),
    ModelKind("weights of 0 bytes", written(WEIGHTS, b""), ("model.safetensors is not a readable safetensors file", "Fetch it again.")),
    ModelKind("one of its files of weights is missing", _one_of_its_files_missing, ("{model} lacks 1 of", "files of weights", "Fetch them.")),
    ModelKind("BERT", _model(BERT, BertForMaskedLM), ("{model} is a 'bert' model (BertForMaskedLM, an encoder that sees both ways)", NOT_CAUSAL)),
    ModelKind("T5", _model(T5, T5ForConditionalGeneration), ("{model} is a 't5' model (T5ForConditionalGeneration, an encoder and a decoder)", NOT_CAUSAL)),
    ModelKind("code of its own, not trusted", _own_model_code, ("the model in", "{model}", *OWN_CODE)),
    ModelKind("a tokenizer with code of its own, not trusted", _own_tokenizer_code, ("the tokenizer in", "{model}", *OWN_CODE)),
    ModelKind("no tokenizer", without("tokenizer*", "special_tokens_map.json"), ("there is no readable tokenizer in", "{model}", "Copy the model's tokenizer.json")),
    ModelKind("tokenizer.json that is not JSON", written("tokenizer.json", "{"), ("there is no readable tokenizer in", "{model}", "Copy the model's tokenizer.json")),
    ModelKind("tokenizer.json without a tokenizer", written("tokenizer.json", "{}"), ("there is no readable tokenizer in", "{model}", "Copy the model's tokenizer.json")),
    ModelKind("a tokenizer with more entries than the model", _model(_llama(vocab_size=300), LlamaForCausalLM), ("the tokenizer of", "has ids up to 399, but its model has a vocabulary of 300", "do not belong together. Take the model's own tokenizer.")),
    ModelKind("special tokens beyond the model's vocabulary, which no text becomes", _special_beyond),
    ModelKind(
        "weights that lack a layer", weights(lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers.1" in name]),
        ("{model} lacks 9 of the weights that its config.json asks for", "layers.1", "fetch the whole model"), at_load=True,
    ),
    ModelKind(
        "weights of another shape", weights(lambda tensors: tensors.update({"model.norm.weight": torch.ones(16)})),
        ("the weights in {model} do not load", "Check that they belong to its config.json."), at_load=True,
    ),
    ModelKind("weights that are NaN", weights(_nan), ("{model} gives no finite loss", "NaN or infinite", "Fetch or train it again."), at_load=True),
]  # fmt: skip
