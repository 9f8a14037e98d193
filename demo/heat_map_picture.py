"""Draws a paragraph of a selection as a token heat map in SVG: `python -m demo.heat_map_picture`.

The README and the documentation show the picture. It needs what `make demo` wrote to out/demo.
"""

import argparse
from pathlib import Path

import numpy as np

from rho_score.reporting.heat_map_picture import heat_map_picture
from rho_score.reporting.sample import DocumentTokens, sample_tokens, token_texts
from rho_score.stores.selection import Selection
from rho_score.stores.tokenizer import load_store_tokenizer

SPREAD = 1.5  # nats of excess loss at which a colour is full


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
    tokenizer = load_store_tokenizer(selection)
    every = sample_tokens(selection, n_tokens=10**9).documents()
    whole = next(document for document in every if document.doc_id == options.document)
    texts = token_texts(tokenizer, whole.input_ids)
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
    drawn = heat_map_picture(
        document, tokenizer, score_name="excess loss (nats)", middle=threshold, spread=SPREAD, threshold=threshold
    )
    options.output.write_text(drawn, encoding="utf-8")
    print(f"wrote {options.output}, {options.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
