"""Finds the lengths in a model's configuration beyond which its computation may change.

Examples are attention windows, chunks, top-k choices and tables of positions. Pure functions.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

# These patterns tell lengths of a text from other whole numbers by the words of their names. A
# number whose name says nothing is taken for a length: a wrong length costs seconds at load, and a
# length that is left out could lead to wrong losses. _COUNTS is for the last word of a name, the
# others for any word.
_COUNTS = re.compile("layers?|heads?|experts?|groups?|ids?|idxs?|index|rank|dims?|factor|theta")
_LENGTHS = re.compile(
    "window|chunk|chunksize|blocks?|length|len|positions?|topk|local|context|seq|sequence|distance|buckets?|extent|budget|rates?"
    "|span|past|mem|memory|floor"
)
_WIDTHS = re.compile(
    "hidden|intermediate|vocab|vocabulary|embd|embed|embeddings?|ffn?|feed|forward|dff|dense|mlp|moe|heads|headdim|inner|model|state|lru"
    "|conv|conv1d|kernel|mamba|expand|experts?|layers?|channels|width|num|n|d|count|tp|seeds?|labels|beams|tokens?|ngram|codebooks?"
    "|multiplier|multiple|scalar|scale|mult|iters|cycles"
)
# Parts of a configuration that do not affect how text goes through the model.
_ELSEWHERE = re.compile(
    r"(\w+_)?(vision|image|audio|video|speech|depth|projector|quantization|compression|text_encoder|mel|mask|suppress)(_\w+)?"
    r"|task_specific_params|id2label|label2id|auto_map|generation_config"
)
# Their frequencies are the same in passes of any length.
_STATIC_ROPES = {"default", "linear", "llama3", "yarn", "proportional"}


def special_lengths(config: Any, context: int) -> dict[int, str]:
    """Returns the numbers in a Hugging Face configuration that may be lengths below `context`.

    Returns the name of each length, shortest first. Products of two numbers are included, because a
    layer may keep a number of blocks of a number of tokens each. Numbers whose names show that they
    are widths, counts or ids are left out.
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
    """True if a layer chooses this number of tokens by a score of its own (sparse attention).

    Which tokens it chooses depends on rounding wherever two scores are nearly equal.
    """
    return bool(re.search("topk|budget", name.lower()))


def _numbers(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    static = content.get("rope_type", content.get("type")) in _STATIC_ROPES
    scaled = any("scaling" in str(key) for key in content)  # queries, by position (Llama 4)
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
