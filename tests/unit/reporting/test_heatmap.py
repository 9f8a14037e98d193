"""Heat maps: what a span shows, what its hover lists, and how its colour and its line are told."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from markupsafe import Markup
from transformers import PreTrainedTokenizerFast

from rho_score.models.pieces import MOST_TOGETHER
from rho_score.reporting.heatmap import COLOURS, INK, LEFT_OUT, STYLE, heat_map, legend, paled, visible
from rho_score.reporting.sample import DocumentTokens, token_texts


class Spans(HTMLParser):
    """The spans of a heat map: (classes, tip, text), those of each `div` by itself, and the text beside them."""

    def __init__(self, content: Markup) -> None:
        super().__init__()
        self.blocks: list[list[tuple[set[str], str, str]]] = []
        self.beside: list[str] = []
        self._inside = False
        self.feed(str(content))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "div":
            assert given == {"class": "doc", "dir": "auto"}
            self.blocks.append([])
        elif tag == "span":
            self.blocks[-1].append((set((given["class"] or "").split()), given["data-tip"] or "", ""))
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = False if tag == "span" else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside:
            classes, tip, text = self.blocks[-1][-1]
            self.blocks[-1][-1] = (classes, tip, text + data)
        else:
            self.beside.append(data)


def document(tokenizer: PreTrainedTokenizerFast, text: str, mask: list[bool] | None = None) -> DocumentTokens:
    ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)
    kept = None if mask is None else np.array((mask * len(ids))[: len(ids)])
    return DocumentTokens("d", None, ids, np.arange(len(ids), dtype=np.float32), mask=kept)


def spans_of(of: DocumentTokens, tokenizer: PreTrainedTokenizerFast, **options: int) -> Spans:
    return Spans(heat_map(of, tokenizer, score_name="loss", middle=5, spread=5, **options))


@pytest.mark.parametrize(
    "text", ["مرحبا", "नमस्ते क्षत्रिय", "漢字", "👩‍👩‍👧‍👦 👍🏽 🇩🇪", "می‌خواهم", "e\u0301", "آية \u06dd"]
)
def test_characters_show_as_characters(text: str, tokenizer: PreTrainedTokenizerFast) -> None:
    shown = [text for _, _, text in spans_of(document(tokenizer, text), tokenizer).blocks[0]]
    assert "".join(shown) == text
    torn = re.compile("^[\u0300-\u036f\u093e-\u094d\u200c\u200d\U0001f3fb-\U0001f3ff]")
    assert not [part for part in shown if torn.match(part)]


def test_the_hover_lists_every_token_of_a_character(tokenizer: PreTrainedTokenizerFast) -> None:
    of = document(tokenizer, "a漢b", [True, True, False])
    assert len(of.input_ids) == 5
    blocks = spans_of(of, tokenizer).blocks
    assert [(classes, text) for classes, _, text in blocks[0]] == [
        ({"h0", "on"}, "a"),
        ({"h2", "half"}, "漢"),  # the mean of 1, 2 and 3 is 2, of colours from 0 to 10
        ({"h4", "on"}, "b"),
    ]
    first, second, third = (int(i) for i in of.input_ids[1:4])
    assert blocks[0][1][1].splitlines() == [
        "'漢'  3 tokens, positions 1 to 3",
        f"token {first}: loss 1.000 nats, kept",
        f"token {second}: loss 2.000 nats, left out",
        f"token {third}: loss 3.000 nats, kept",
    ]
    assert blocks[0][2][1].splitlines() == [f"'b'  token {of.input_ids[4]}, position 4", "loss 4.000 nats", "kept"]


def test_the_colour_is_that_of_the_mean(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = document(tokenizer, "漢").input_ids
    for scores, level in [((0, 0, 0), 0), ((10, 10, 10), 10), ((0, 10, 5), 5), ((np.nan, 10, np.nan), 10)]:
        of = DocumentTokens("d", None, ids, np.array(scores, np.float32))
        assert spans_of(of, tokenizer).blocks[0][0][0] == {f"h{level}"}
    unknown = DocumentTokens("d", None, ids, np.full(3, np.nan, np.float32))
    classes, tip, _ = spans_of(unknown, tokenizer).blocks[0][0]
    assert classes == set()
    assert tip.count("context: it has no loss") == 3


def test_long_documents_unfold_and_say_what_is_left_out(tokenizer: PreTrainedTokenizerFast) -> None:
    of = document(tokenizer, "a漢" * 100)
    assert len(of.input_ids) == 400
    whole = spans_of(of, tokenizer, max_tokens=400)
    assert len(whole.blocks) == 1
    assert whole.beside == []
    cut = spans_of(of, tokenizer, max_tokens=10)  # 4 + 4 + 1; the next character would go beyond
    assert [len(block) for block in cut.blocks] == [5]
    assert cut.beside == [" … 391 more tokens"]
    folded = spans_of(of, tokenizer, max_tokens=10, folded=390)
    assert folded.beside == ["391 more tokens"]
    assert "".join(text for block in folded.blocks for _, _, text in block) == "a漢" * 100
    both = spans_of(of, tokenizer, max_tokens=8, folded=8)
    assert [len(block) for block in both.blocks] == [4, 4]
    assert both.beside == ["392 more tokens", " … 384 more tokens are left out"]


def test_what_has_no_character_can_still_be_pointed_at(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = np.array([10**6, int(document(tokenizer, "漢").input_ids[0])], np.int32)
    of = DocumentTokens("d", None, ids, np.zeros(2, np.float32))
    assert [text for _, _, text in spans_of(of, tokenizer).blocks[0]] == ["∅", "\\xe6"]
    assert token_texts(tokenizer, ids) == ["", "\\xe6"]


def test_piled_up_marks_do_not_make_a_span_without_end(tokenizer: PreTrainedTokenizerFast) -> None:
    of = document(tokenizer, "a" + "\u0301" * 500)
    blocks = spans_of(of, tokenizer, max_tokens=2000).blocks
    assert max(tip.count("\n") for _, tip, _ in blocks[0]) <= MOST_TOGETHER
    assert "".join(text for _, _, text in blocks[0]) == "a" + "\u0301" * 500


def test_only_joiners_that_join_are_left_unseen() -> None:
    assert visible("👩\u200d👧 می\u200cخواهم") == "👩\u200d👧 می\u200cخواهم"
    assert visible("ad\u200dmin \u200d\u200d") == "ad‹200D›min ‹200D›‹200D›"
    assert visible("ا\u202eb\u2067") == "ا‹202E›b‹2067›"
    assert visible("a\tb\nc\x1b") == "a⇥\tb↵\nc‹001B›"


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_can_be_read_on_every_colour() -> None:
    """The contrast of WCAG's level AA."""
    for i, colour in enumerate(COLOURS):
        assert contrast(colour, "#ffffff" if i in (0, 10) else INK) >= 4.5
        assert contrast(paled(colour), LEFT_OUT) >= 4.5
        assert f".doc .h{i}.off{{background:{paled(colour)};color:{LEFT_OUT}}}" in STYLE


def test_the_legend_names_the_scale_and_the_line() -> None:
    html = str(legend(score_name="excess <loss>", middle=0.25, spread=1.5, masked=True))
    assert "−1.25" in html
    assert "1.75" in html
    assert "excess &lt;loss&gt;, nats" in html
    assert "underlined" in html
    assert "left out" in html
    plain = str(legend(score_name="value", middle=2, spread=1, nats=False, masked=False))
    assert "nats" not in plain
    assert "kept" not in plain
