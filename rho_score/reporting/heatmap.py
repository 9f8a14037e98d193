"""Token heat maps as HTML: each token is a span coloured by its score, with its numbers on hover.

Tokens that share a character are one span. There is no script, and all text is escaped.
"""

import re
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from transformers import PreTrainedTokenizerBase

from rho_score import safe_text as shown
from rho_score.models.pieces import MOST_TOGETHER, Piece, text_pieces, whole_characters
from rho_score.reporting.sample import DocumentTokens

LEVELS = 11  # levels of colour: 0 is the lowest, 5 the middle, 10 the highest
AT_ONCE = 600
"""Tokens of a document that a page shows without unfolding it."""
MOST_SHOWN = 60_000
"""Tokens of all documents of a page, which then has some megabytes."""

_BLUES = ["#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#ecf3f7"]
_REDS = ["#fbeee6", "#fddbc7", "#f4a582", "#d6604d", "#b2182b"]
COLOURS = [*_BLUES, "#f7f7f7", *_REDS]
"""The colour of each level."""
INK, LEFT_OUT = "#16191d", "#454c54"
"""The colours of text: of tokens as a rule, and of those that are left out."""


def paled(colour: str) -> str:
    """The colour behind a token that is left out."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - 0.35 * (255 - part)):02x}" for part in parts)


# No span has padding, a border or `isolate`, which would tear the letters of joined scripts apart.
STYLE = Markup(
    ".doc{font:14px/2 ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere;"
    f"unicode-bidi:plaintext;text-align:start;color:{INK}}}"
    ".doc span{position:relative;box-shadow:inset -1px 0 #fff}"
    f".doc .on{{box-shadow:inset -1px 0 #fff,inset 0 -2px {INK},inset 0 -3px #fff}}"
    f".doc span:hover{{outline:1px solid {INK};z-index:2}}"
    f".doc span[data-tip]:hover::after{{content:attr(data-tip);position:absolute;left:0;top:1.7em;background:{INK};color:#fff;"
    "font:12px/1.5 system-ui,sans-serif;padding:4px 8px;border-radius:4px;white-space:pre;direction:ltr;"
    "unicode-bidi:isolate;text-align:left;z-index:3;pointer-events:none}"
    ".doc:dir(rtl) span[data-tip]:hover::after{left:auto;right:0}"
    ".doc+details{margin:6px 0 0}"
    ".legend{display:flex;flex-wrap:wrap;gap:6px 18px;align-items:center;color:#5f6872;font-size:13px;margin:0 0 12px}"
    ".legend .doc{line-height:1.5}"
    + "".join(
        f".doc .h{i}{{background:{colour}{';color:#fff' if i in (0, 10) else ''}}}"
        f".doc .h{i}.off{{background:{paled(colour)};color:{LEFT_OUT}}}"
        for i, colour in enumerate(COLOURS)
    )
    + f".doc .off{{color:{LEFT_OUT}}}.doc .half{{box-shadow:inset -1px 0 #fff;border-bottom:2px dotted {INK}}}"
)

_SEEN = re.compile(
    "((?<=[^\\x00-\\x7f\\u2000-\\u206f])[\\u200c\\u200d]|[\\u0600-\\u0605\\u06dd\\u070f\\u0890\\u0891\\u08e2\\U000110bd\\U000110cd])"
)
"""Formatting characters that belong to a text: joiners behind letters and emoji, and signs that are drawn."""


def legend(*, score_name: str, middle: float, spread: float, nats: bool = True, masked: bool) -> Markup:
    """What the colours and lines of the heat maps mean, as a `<div class="legend">`.

    masked: True if the documents have masks. The other arguments are those of `heat_map`.
    """
    ends = (f" {middle - spread:.3g} ".replace("-", "−"), f" {middle + spread:.3g} ".replace("-", "−"))
    steps = [ends[0], *["  "] * (LEVELS - 2), ends[1]]
    scale = Markup("").join(Markup('<span class="h{}">{}</span>').format(i, step) for i, step in enumerate(steps))
    items = [Markup('<span class="doc">{}</span> {}').format(scale, score_name + ", nats" * nats)]
    if masked:
        items.append(Markup('<span class="doc"><span class="h7 on">underlined</span></span> kept'))
        items.append(Markup('<span class="doc"><span class="h3 off">pale, without a line</span></span> left out'))
    words = "Point at a token for its numbers. Tokens that share a character have the colour of their mean"
    items.append(Markup(words + ", and a dotted line if only some are kept." if masked else words + "."))
    return Markup('<div class="legend">{}</div>').format(
        Markup("").join(Markup("<span>{}</span>").format(item) for item in items)
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
    folded: int = 0,
) -> Markup:
    """One document as a `<div class="doc">` of coloured tokens. The page must include `STYLE` once.

    Args:
        score_name: what the hover calls the score, such as "excess loss".
        middle: the score that is shown without colour.
        spread: the distance from `middle` at which the colour is full.
        nats: True if the hover names nats as the unit of the score.
        max_tokens: how many tokens are shown, from the start of the document.
        folded: how many tokens after these are shown when they are unfolded.
    """
    n_tokens, most = len(document.input_ids), max_tokens + folded
    # a few tokens more, so that no character is torn at the end
    pieces = whole_characters(text_pieces(tokenizer, document.input_ids[: most + MOST_TOGETHER]))
    spans = [
        (piece.stop, _span(document, piece, score_name, middle, spread, " nats" if nats else ""))
        for piece in pieces
        if piece.stop <= most
    ]
    first = [span for stop, span in spans if stop <= max_tokens]
    more = [span for stop, span in spans if stop > max_tokens]
    ends = [stop for stop, _ in spans]
    at_once, rest = (ends[len(first) - 1] if first else 0), n_tokens - (ends[-1] if ends else 0)
    left_out = Markup("<i> … {} more tokens{}</i>").format(f"{rest:,}", " are left out" * bool(more)) if rest else ""
    if not more:
        return _doc([*first, left_out])
    summary = Markup("<summary>{} more tokens</summary>").format(f"{n_tokens - at_once:,}")
    return _doc(first) + Markup("<details>{}{}</details>").format(summary, _doc([*more, left_out]))


def _doc(content: Sequence[Markup | str]) -> Markup:
    return Markup('<div class="doc" dir="auto">') + Markup("").join(content) + Markup("</div>")


def level_of(scores: np.ndarray, middle: float, spread: float) -> int | None:
    """The level of colour of tokens that are shown together, by the mean of their scores; None without any."""
    known = scores[~np.isnan(scores)]
    if not len(known):
        return None
    scaled = (float(known.mean()) - middle) / max(spread, 1e-6)
    return int(np.clip(np.nan_to_num(np.round((scaled + 1) / 2 * (LEVELS - 1))), 0, LEVELS - 1))


def _span(document: DocumentTokens, piece: Piece, score_name: str, middle: float, spread: float, unit: str) -> Markup:
    part = slice(piece.start, piece.stop)
    level = level_of(document.score[part], middle, spread)
    classes = [] if level is None else [f"h{level}"]
    if document.mask is not None:
        kept = document.mask[part]
        classes.append("on" if kept.all() else "half" if kept.any() else "off")
    tip = escape(_tip(document, piece, score_name, unit))
    # a token without a text of its own must still be there to point at
    text = escape(visible(piece.text) or "∅")
    return Markup(f'<span class="{" ".join(classes)}" data-tip="{tip}">{text}</span>')


def _tip(document: DocumentTokens, piece: Piece, score_name: str, unit: str) -> str:
    if piece.stop - piece.start == 1:
        i = piece.start
        about = f"{piece.text!r}  token {document.input_ids[i]}, position {i}"
        return "\n".join([about, *_numbers(document, i, score_name, unit)])
    lines = [f"{piece.text!r}  {piece.stop - piece.start} tokens, positions {piece.start} to {piece.stop - 1}"]
    for i in range(piece.start, min(piece.stop, piece.start + MOST_TOGETHER)):
        lines.append(f"token {document.input_ids[i]}: {', '.join(_numbers(document, i, score_name, unit))}")
    if piece.stop - piece.start > MOST_TOGETHER:
        lines.append(f"… {piece.stop - piece.start - MOST_TOGETHER:,} more")
    return "\n".join(lines)


def _numbers(document: DocumentTokens, i: int, score_name: str, unit: str) -> list[str]:
    """What is known of a token."""
    if np.isnan(document.score[i]):
        numbers = ["context: it has no loss" if unit else "it has no value"]
    else:
        numbers = [f"{score_name} {document.score[i]:.3f}{unit}"]
        for name, losses in (("reference loss", document.ref_loss), ("base loss", document.base_loss)):
            if losses is not None:
                numbers.append(f"{name} {losses[i]:.3f}")
    if document.mask is not None:
        numbers.append("kept" if document.mask[i] else "left out")
    return numbers


def visible(text: str) -> str:
    """`text` with control and formatting characters made visible. A newline still breaks lines."""
    lines = ("⇥\t".join(map(_visible, line.split("\t"))) for line in text.split("\n"))
    return "↵\n".join(lines)


def _visible(text: str) -> str:
    return "".join(part if i % 2 else shown.visible(part) for i, part in enumerate(_SEEN.split(text)))
