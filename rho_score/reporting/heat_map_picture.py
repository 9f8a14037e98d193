"""Draws a piece of a document as a token heat map in SVG, for pages that show no HTML of ours.

A README, a slide and a notebook on GitHub show such a picture; `heatmap` has the form with numbers on hover.
"""

import unicodedata
from html import escape

from transformers import PreTrainedTokenizerBase

from rho_score.models.pieces import text_pieces
from rho_score.reporting.heatmap import COLOURS, INK, LEFT_OUT, LEVELS, level_of, paled, visible
from rho_score.reporting.sample import DocumentTokens

SIZE, ADVANCE, LINE, MARGIN = 15, 9.0, 27, 22  # of the text, pixels
GREY = "#57606a"
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace"


def heat_map_picture(
    document: DocumentTokens,
    tokenizer: PreTrainedTokenizerBase,
    *,
    score_name: str,
    middle: float,
    spread: float,
    threshold: float | None = None,
    columns: int = 100,
) -> str:
    """The SVG of all tokens of a document, wrapped after `columns` characters; see `heat_map` for what the colours mean.

    threshold: of the selection, for the legend; None if there is none.
    """
    column, row, widest, marks = 0, 0, 0, []
    for piece in text_pieces(tokenizer, document.input_ids):
        part = slice(piece.start, piece.stop)
        level = level_of(document.score[part], middle, spread)
        kept = document.mask is None or bool(document.mask[part].any())
        for i, text in enumerate((visible(piece.text) or "∅").split("\n")):
            if i or column + _width(text) > columns:
                column, row = 0, row + 1
            if text:
                marks.append(_token(text, column, row, level, kept, underlined=kept and document.mask is not None))
            column += _width(text)
            widest = max(widest, column)
    width, height = max(2 * MARGIN + widest * ADVANCE, 640), 2 * MARGIN + (row + 1) * LINE + 44
    words = f"{score_name}, {middle - spread:+.1f} to {middle + spread:+.1f}"
    if document.mask is not None:
        words += "; underlined: kept" + (f" (threshold {threshold:+.2f})" if threshold is not None else "")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
        f'font-family="{FONT}" font-size="{SIZE}">\n<title>Tokens of a document, coloured by {escape(score_name)}</title>\n'
        f'<rect x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1}" rx="8" fill="#fff" stroke="#d0d7de"/>\n'
        + "\n".join(marks)
        + f"\n{_legend(MARGIN, height - 40, words)}\n</svg>\n"
    )


def _width(text: str) -> int:
    """The columns that a text takes in a font of one width."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _token(text: str, column: int, row: int, level: int | None, kept: bool, *, underlined: bool) -> str:
    x, y, wide = MARGIN + column * ADVANCE, MARGIN + row * LINE, _width(text) * ADVANCE
    ink = LEFT_OUT if not kept else "#fff" if level in (0, LEVELS - 1) else INK
    colour = "#fff" if level is None else COLOURS[level] if kept else paled(COLOURS[level])
    box = f'x="{x + 0.5:g}" width="{wide - 1:g}"'
    line = f'<rect {box} y="{y + 19}" height="2" fill="{INK}"/>' if underlined else ""
    return (
        f'<g><rect {box} y="{y}" height="21" fill="{colour}"/>{line}<text x="{x:g}" y="{y + 14.5:g}" '
        f'textLength="{wide:g}" fill="{ink}" xml:space="preserve">{escape(text)}</text></g>'
    )


def _legend(x: float, y: float, words: str) -> str:
    boxes = "".join(
        f'<rect x="{x + 18 * i}" y="{y}" width="18" height="12" fill="{colour}"/>' for i, colour in enumerate(COLOURS)
    )
    return (
        f'{boxes}<text x="{x + 18 * LEVELS + 14}" y="{y + 11}" font-family="system-ui,sans-serif" font-size="12.5" '
        f'fill="{GREY}">{escape(words).replace("-", "−")}</text>'
    )
