"""Token heat maps as HTML: each token is a span coloured by its score, with its numbers on hover.

There is no script, and all text is escaped.
"""

import numpy as np
from markupsafe import Markup, escape
from transformers import PreTrainedTokenizerBase

from rho_score import safe_text as shown
from rho_score.reporting.sample import DocumentTokens, token_texts

LEVELS = 11  # levels of colour: 0 is the lowest, 5 the middle, 10 the highest

_BLUES = ["#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#ecf3f7"]
_REDS = ["#fbeee6", "#fddbc7", "#f4a582", "#d6604d", "#b2182b"]
COLOURS = [*_BLUES, "#f7f7f7", *_REDS]
"""The colour of each level."""

STYLE = Markup(
    ".doc{font:14px/1.9 ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere;color:#1b1f24}"
    ".doc span{position:relative;border-radius:2px;unicode-bidi:isolate;padding:1px 0}"
    ".doc .off{opacity:.38}.doc .off:hover{opacity:1}"
    ".doc span:hover{outline:1px solid #1b1f24;z-index:2}"
    ".doc span:hover::after{content:attr(data-tip);position:absolute;left:0;top:1.6em;background:#1b1f24;color:#fff;"
    "font:12px/1.5 system-ui,sans-serif;padding:4px 8px;border-radius:4px;white-space:pre;z-index:3;pointer-events:none}"
    + "".join(
        f".doc .h{i}{{background:{colour}{';color:#fff' if i in (0, 10) else ''}}}" for i, colour in enumerate(COLOURS)
    )
)


def heat_map(
    document: DocumentTokens,
    tokenizer: PreTrainedTokenizerBase,
    *,
    score_name: str,
    middle: float,
    spread: float,
    nats: bool = True,
    max_tokens: int = 600,
) -> Markup:
    """One document as a `<div class="doc">` of coloured tokens. The page must include `STYLE` once.

    Args:
        score_name: what the hover calls the score, such as "excess loss".
        middle: the score that is shown without colour.
        spread: the distance from `middle` at which the colour is full.
        nats: True if the hover names nats as the unit of the score.
        max_tokens: how many tokens are shown, from the start of the document.
    """
    ids = document.input_ids[:max_tokens]
    scores = document.score[:max_tokens]
    scaled = np.nan_to_num((scores - middle) / max(spread, 1e-6), nan=0.0)
    levels = np.clip(np.round((scaled + 1) / 2 * (LEVELS - 1)), 0, LEVELS - 1).astype(int)
    spans = []
    for i, text in enumerate(token_texts(tokenizer, ids)):
        off = " off" if document.mask is not None and not document.mask[i] else ""
        tip = escape(_tip(document, i, text, score_name, " nats" if nats else ""))
        spans.append(Markup(f'<span class="h{levels[i]}{off}" data-tip="{tip}">{escape(visible(text))}</span>'))
    rest = len(document.input_ids) - len(ids)
    tail = Markup("<i> … {} more tokens</i>").format(f"{rest:,}") if rest > 0 else Markup("")
    return Markup('<div class="doc">') + Markup("").join(spans) + tail + Markup("</div>")


def _tip(document: DocumentTokens, i: int, text: str, score_name: str, unit: str) -> str:
    known = not np.isnan(document.score[i])
    lines = [
        f"{text!r}  token {document.input_ids[i]}, position {i}",
        f"{score_name} {document.score[i]:.3f}{unit}"
        if known
        else "context: it has no loss"
        if unit
        else "it has no value",
    ]
    for name, losses in (("reference loss", document.ref_loss), ("base loss", document.base_loss)):
        if losses is not None and known:
            lines.append(f"{name} {losses[i]:.3f}")
    if document.mask is not None:
        lines.append("kept" if document.mask[i] else "left out")
    return "\n".join(lines)


def visible(text: str) -> str:
    """`text` with control and formatting characters made visible. A newline still breaks lines."""
    lines = ("⇥\t".join(map(shown.visible, line.split("\t"))) for line in text.split("\n"))
    return "↵\n".join(lines)
