"""Lengths of a model's configuration after which its computation may change: windows, chunks, top-k, tables. Pure functions."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

# Names of whole numbers that are no lengths of a text, by their words. A number whose name tells nothing is taken for a length:
# that costs seconds at load, and one that is left out could cost the numbers.
_COUNTS = re.compile("layers?|heads?|experts?|groups?|ids?|idxs?|index|rank|dims?|factor|theta")  # as the last word
_LENGTHS = re.compile(
    "window|chunk|chunksize|blocks?|length|len|positions?|topk|local|context|seq|sequence|distance|buckets?|extent|budget|rates?"
    "|span|past|mem|memory|floor"
)
_WIDTHS = re.compile(
    "hidden|intermediate|vocab|vocabulary|embd|embed|embeddings?|ffn?|feed|forward|dff|dense|mlp|moe|heads|headdim|inner|model|state|lru"
    "|conv|conv1d|kernel|mamba|expand|experts?|layers?|channels|width|num|n|d|count|tp|seeds?|labels|beams|tokens?|ngram|codebooks?"
    "|multiplier|multiple|scalar|scale|mult|iters|cycles"
)
# Parts that say nothing about how text goes through the model.
_ELSEWHERE = re.compile(
    r"(\w+_)?(vision|image|audio|video|speech|depth|projector|quantization|compression|text_encoder|mel|mask|suppress)(_\w+)?"
    r"|task_specific_params|id2label|label2id|auto_map|generation_config"
)
_STATIC_ROPES = {"default", "linear", "llama3", "yarn", "proportional"}  # the same frequencies in passes of any length


def special_lengths(config: Any, context: int) -> dict[int, str]:
    """The whole numbers of a Hugging Face configuration that may be lengths below `context`, with their names, shortest first.

    Products of two count too: blocks of so many tokens, of which so many are kept. Left out are the numbers that their names
    show to be widths, counts or ids.
    """
    numbers: dict[int, str] = {}
    for name, value in _numbers(config.get_text_config().to_dict()):
        if value >= 2:
            known = numbers.get(value)
            numbers[value] = name if known is None else known if name in known else f"{known}, {name}"
    found = dict(numbers)
    for (a, one), (b, other) in combinations_with_replacement(sorted(numbers.items()), 2):
        found.setdefault(a * b, f"{one} x {other}")
    return {length: found[length] for length in sorted(found) if length < context}


def is_choice(name: str) -> bool:
    """Whether the name is that of a number of tokens that a layer chooses by a score of its own (sparse attention): which ones
    hangs on rounding, wherever two scores are near each other."""
    return bool(re.search("topk|budget", name.lower()))


def _numbers(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    static = content.get("rope_type", content.get("type")) in _STATIC_ROPES
    scaled = any("scaling" in str(key) for key in content)  # queries are scaled by their place (Llama 4)
    for key, value in content.items():
        name = str(key)
        if _ELSEWHERE.fullmatch(name) or (name == "original_max_position_embeddings" and static and not scaled):
            continue
        for one in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            if isinstance(one, Mapping):
                yield from _numbers(one, f"{path}{name}.")
            elif isinstance(one, int) and not isinstance(one, bool) and not _is_dimension(name):
                yield f"{path}{name}", one


def _is_dimension(name: str) -> bool:
    words = name.lower().strip("_").split("_")
    if _COUNTS.fullmatch(words[-1]):
        return True
    return not any(map(_LENGTHS.fullmatch, words)) and any(map(_WIDTHS.fullmatch, words))
