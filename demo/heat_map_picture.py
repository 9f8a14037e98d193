"""Draws a paragraph of a selection as a token heat map in SVG: `python -m demo.heat_map_picture`.

The README and the documentation show the picture. It needs what `make demo` wrote to out/demo.
"""

import argparse
from html import escape
from pathlib import Path

import numpy as np

from rho_score.reporting.heatmap import COLOURS, INK, LEFT_OUT, LEVELS, paled, visible
from rho_score.reporting.sample import DocumentTokens, sample_tokens, token_texts
from rho_score.stores.selection import Selection
from rho_score.stores.tokenizer import load_store_tokenizer

SIZE, ADVANCE, LINE, MARGIN = 15, 9.0, 27, 22  # of the text, pixels
GREY = "#57606a"
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace"
SPREAD = 1.5  # nats of excess loss at which a colour is full


def picture(texts: list[str], document: DocumentTokens, threshold: float) -> str:
    """The SVG of these tokens of a document, whose colours stand for their distance to the threshold."""
    assert document.mask is not None
    scaled = np.nan_to_num((document.score - threshold) / SPREAD, nan=0.0)
    levels = np.clip(np.round((scaled + 1) / 2 * (LEVELS - 1)), 0, LEVELS - 1).astype(int)
    column, row, widest, marks = 0, 0, 0, []
    for text, level, kept in zip(texts, levels.tolist(), document.mask.tolist(), strict=True):
        for i, piece in enumerate(visible(text).split("\n")):
            if i:
                column, row = 0, row + 1
            if piece:
                marks.append(_token(piece, column, row, level, kept))
            column += len(piece)
            widest = max(widest, column)
    width, height = 2 * MARGIN + widest * ADVANCE, 2 * MARGIN + (row + 1) * LINE + 44
    legend = _legend(MARGIN, height - 40, threshold)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
        f'font-family="{FONT}" font-size="{SIZE}">\n<title>Tokens of a paragraph, coloured by excess loss</title>\n'
        f'<rect x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1}" rx="8" fill="#fff" stroke="#d0d7de"/>\n'
        + "\n".join(marks)
        + f"\n{legend}\n</svg>\n"
    )


def _token(text: str, column: int, row: int, level: int, kept: bool) -> str:
    x, y = MARGIN + column * ADVANCE, MARGIN + row * LINE
    ink = LEFT_OUT if not kept else "#fff" if level in (0, LEVELS - 1) else INK
    colour = COLOURS[level] if kept else paled(COLOURS[level])
    box = f'x="{x + 0.5:g}" width="{len(text) * ADVANCE - 1:g}"'
    line = f'<rect {box} y="{y + 19}" height="2" fill="{INK}"/>' if kept else ""
    return (
        f'<g><rect {box} y="{y}" height="21" fill="{colour}"/>{line}<text x="{x:g}" y="{y + 14.5:g}" '
        f'textLength="{len(text) * ADVANCE:g}" fill="{ink}" xml:space="preserve">{escape(text)}</text></g>'
    )


def _legend(x: float, y: float, threshold: float) -> str:
    boxes = "".join(
        f'<rect x="{x + 18 * i}" y="{y}" width="18" height="12" fill="{colour}"/>' for i, colour in enumerate(COLOURS)
    )
    after = x + 18 * LEVELS + 14
    scale = f"excess loss, {threshold - SPREAD:+.1f} to {threshold + SPREAD:+.1f} nats"
    words = f"{scale}; underlined: kept, above {threshold:+.2f}".replace("-", "−")
    return (
        f'{boxes}<text x="{after}" y="{y + 11}" font-family="system-ui,sans-serif" font-size="12.5" '
        f'fill="{GREY}">{words}</text>'
    )


def main() -> None:
    """Write the picture of the paragraph that the options name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--selection", default="out/demo/selection")
    parser.add_argument("--document", default="topic/augassign")
    parser.add_argument(
        "--begin", default="An augmented assignment expression", help="text that the paragraph begins with"
    )
    parser.add_argument("--end", default="instead.", help="text that it ends with")
    parser.add_argument("--output", type=Path, default=Path("docs/images/heat-map.svg"))
    options = parser.parse_args()
    selection = Selection.open(options.selection)
    every = sample_tokens(selection, n_tokens=10**9).documents()
    whole = next(document for document in every if document.doc_id == options.document)
    texts = token_texts(load_store_tokenizer(selection), whole.input_ids)
    ends = np.cumsum([len(text) for text in texts])
    text = "".join(texts)
    start = text.index(options.begin)
    stop = text.index(options.end, start) + len(options.end)
    part = slice(int(np.searchsorted(ends, start, "right")), int(np.searchsorted(ends, stop)) + 1)
    assert whole.mask is not None
    document = DocumentTokens(
        whole.doc_id, whole.group, whole.input_ids[part], whole.score[part], mask=whole.mask[part]
    )
    threshold = selection.summary["thresholds"][0]["threshold"]
    options.output.write_text(picture(texts[part], document, threshold), encoding="utf-8")
    print(f"wrote {options.output}, {options.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
