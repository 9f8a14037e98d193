"""Text that attacks: pages, terminals, spreadsheets and paths."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tests.stores import Doc, write_scores

# What each would do if it ran: set the title, add an element with the id `pwned`, or ask a server for something.
_RUN = "document.title='pwned';document.documentElement.appendChild(document.createElement('b')).id='pwned'"
PAYLOADS = [
    f"<script>{_RUN}</script>",
    f'"><script>{_RUN}</script>',
    f"'><img src=x onerror={_RUN}>",
    f'"><img src=x onerror="{_RUN}">',
    f"<svg/onload={_RUN}>",
    f'</style></title></textarea></div></span><svg onload="{_RUN}">',
    f"<details open ontoggle={_RUN}>",
    f'<iframe srcdoc="<script>parent.{_RUN}</script>">',
    f'<a href="javascript:{_RUN}" id=x tabindex=1 autofocus onfocus={_RUN}>x</a>',
    f'" onmouseover="{_RUN}" autofocus onfocus="{_RUN}" x="',
    f'<math><mtext></p><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror={_RUN}&gt;">',
    f'<noscript><p title="</noscript><img src=x onerror={_RUN}>">',
    f"<template><script>{_RUN}</script></template><object data=javascript:{_RUN}>",
    f"&lt;script&gt;{_RUN}&lt;/script&gt;&#60;script&#62;{_RUN}&#60;/script&#62;",
    f"\u003cscript\u003e{_RUN}\u003c/script\u003e\x00<scr\x00ipt>{_RUN}</scr\x00ipt>",
    "<link rel=stylesheet href=http://127.0.0.1:9/x.css><style>@import 'http://127.0.0.1:9/y.css';</style>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'><base href=http://127.0.0.1:9/>",
    "<img src=http://127.0.0.1:9/i.png><form action=http://127.0.0.1:9/ id=f><button formaction=javascript:alert(1)>",
    "--><!--><![CDATA[<script>alert(1)</script>]]><?xml version='1.0'?>",
    "{{ 7 * 7 }}{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}${7*7}<%= 7 %>",
    "}</style><style>*{background:url(http://127.0.0.1:9/z)}",
]
CONTROLS = [
    "\x1b[2J\x1b[31mred\x1b]0;title\x07\x1b]8;;http://127.0.0.1:9/\x07link",
    "\x9b31mC1",
    "a\rrho-score: all done",
    "a\nrho-score: all done\n",
    "\u202eright to left\u2066isolate\u2028line\u0085next\x00nul\x08\x08\x7f",
]
FORMULAS = ['=HYPERLINK("http://127.0.0.1:9/","x")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1"]
PATHS = [
    "../../x",
    "/etc/passwd",
    "..\\..\\x",
    "a/../../b",
    "C:\\x",
    "~root",
    "x\x00y",
    "%2e%2e%2fx",
    "file:///x",
    "x" * 1_000_000,
]
EVERY = [*PAYLOADS, *CONTROLS, *FORMULAS, *PATHS]


def write_hostile(
    folder: Path, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, model: Path, *, seed: int = 0
) -> Path:
    """A score set whose ids, groups and documents are these texts; `seed`: of the losses."""
    docs = []
    for i, text in enumerate(texts):
        ids = tokenizer(text[:500] * 2, add_special_tokens=False)["input_ids"]
        losses: list[float | None] = [((seed + 7 * i + 3 * j) % 16) / 4 for j in range(len(ids))]
        docs.append(Doc(text, texts[-1 - i], ids, losses))
    return write_scores(folder, [[docs]], tokenizer=model)
