"""The picture of a heat map: well-formed, one box a piece, colours and lines as computed by hand, hostile text as text."""

from xml.etree import ElementTree

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from rho_score.models.pieces import text_pieces
from rho_score.reporting.heat_map_picture import heat_map_picture
from rho_score.reporting.heatmap import COLOURS, paled
from rho_score.reporting.sample import DocumentTokens

SVG = "{http://www.w3.org/2000/svg}"


def _document(tokenizer: PreTrainedTokenizerFast, text: str, *, masked: bool = True) -> DocumentTokens:
    ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)
    score = np.linspace(-1, 1, len(ids), dtype=np.float32)
    return DocumentTokens("d", None, ids, score, mask=score >= 0 if masked else None)


def _boxes(picture: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(picture).iter(f"{SVG}g"))


def test_each_piece_is_a_box_with_the_colour_of_its_score(tokenizer: PreTrainedTokenizerFast) -> None:
    document = _document(tokenizer, "one two three four five six")
    drawn = heat_map_picture(document, tokenizer, score_name="loss", middle=0.0, spread=1.0)
    boxes, pieces = _boxes(drawn), text_pieces(tokenizer, document.input_ids)
    assert len(boxes) == len(pieces) == len(document.input_ids)
    for box, piece, score in zip(boxes, pieces, document.score.tolist(), strict=True):
        rects, (text,) = box.findall(f"{SVG}rect"), box.findall(f"{SVG}text")
        colour = COLOURS[round((score + 1) / 2 * 10)]
        assert text.text == piece.text
        assert rects[0].get("fill") == (colour if score >= 0 else paled(colour))
        assert len(rects) == (2 if score >= 0 else 1)


def test_long_lines_are_wrapped_and_wide_characters_take_two_columns(tokenizer: PreTrainedTokenizerFast) -> None:
    drawn = heat_map_picture(
        _document(tokenizer, "語" * 40, masked=False), tokenizer, score_name="loss", middle=0.0, spread=1.0, columns=20
    )
    places = [(float(t.get("x", "")), float(t.get("y", ""))) for b in _boxes(drawn) for t in b.findall(f"{SVG}text")]
    assert len(places) == 40
    assert len({y for _, y in places}) == 4
    assert max(x for x, _ in places) - min(x for x, _ in places) == pytest.approx(9 * 2 * 9.0)


@pytest.mark.parametrize("text", ['<script>alert("1")</script> & ]]>', "a\x07b\x1b[31m\u2028c", "one\ttwo\n\nthree"])
def test_hostile_text_is_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    drawn = heat_map_picture(
        _document(tokenizer, text), tokenizer, score_name="a < b & c", middle=0.0, spread=1.0, threshold=-0.5
    )
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(drawn).iter()}
    assert tags == {"svg", "title", "rect", "g", "text"}
    assert "(threshold −0.50)" in drawn


def test_a_token_without_a_score_is_white(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = np.array(tokenizer("one", add_special_tokens=False)["input_ids"], np.int32)
    document = DocumentTokens("d", None, ids, np.full(len(ids), np.nan, np.float32))
    drawn = heat_map_picture(document, tokenizer, score_name="loss", middle=0.0, spread=0.0)
    assert {box.findall(f"{SVG}rect")[0].get("fill") for box in _boxes(drawn)} == {"#fff"}
