"""Chats, responses to prompts, and texts behind a prefix: scored, selected and exported, beside a plain float32 forward."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from rho_score.cli import main
from rho_score.config import CorpusConfig, ExportConfig, PlanConfig, SelectConfig
from rho_score.corpus.plan import make_plan
from rho_score.errors import InputError
from rho_score.exporting.job import export
from rho_score.scoring.plan_lines import estimate
from rho_score.selecting.job import select
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection
from tests.conftest import some_text
from tests.oracle import load_float32, plain_losses
from tests.ray.conftest import digests, score_into

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '[' + message.role + ']' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + eos_token }}{% endgeneration %}{% else %}{{ message.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
"""It marks what the assistant generates; the models' template is the same without these marks."""
COLUMN = {"id_column": "id", "group_column": None}


def _chats() -> list[dict[str, Any]]:
    chats = []
    for i in range(40):
        chat = [{"role": "system", "content": some_text(3, 900 + i)}] if i % 3 == 0 else []
        for turn in range(1 + i % 3):
            chat += [
                {"role": "user", "content": some_text(1 + i % 7, 2 * i + turn)},
                {"role": "assistant", "content": some_text(1 + i % 11, 500 + 2 * i + turn)},
            ]
        chats.append({"id": f"chat-{i}", "messages": chat})
    return chats


@pytest.fixture(scope="module")
def chat_model(make_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = Path(shutil.copytree(make_model(1), tmp_path_factory.mktemp("chat") / "model"))
    template = TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    (model / "chat_template.jinja").write_text(template)
    return model


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chats in Parquet and in JSON lines, and some that cannot be scored."""
    folder = tmp_path_factory.mktemp("chats")
    rows = _chats()
    pq.write_table(pa.Table.from_pylist(rows[:25]), folder / "a.parquet", row_group_size=10)
    wrong = [
        {"id": "sharegpt", "messages": [{"from": "human", "value": "hi"}]},
        {"id": "null", "messages": None},
        {"id": "none", "messages": []},
        {"id": "number", "messages": [{"role": "user", "content": 7}]},
    ]
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[25:] + wrong))
    return folder


@pytest.fixture(scope="module")
def chat_scores(ray_cluster: str, chats: Path, chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("scores") / "ref"
    score_into(chats, output, chat_model, messages_column="messages", signals=("entropy",), **COLUMN)
    return output


def _rows(store: ScoreSet | Selection) -> dict[str, dict[str, Any]]:
    return {row["doc_id"]: row for unit in store.units for row in store.unit_table(unit.unit).to_pylist()}


def test_the_turns_of_the_assistant_have_the_losses_of_a_plain_forward(
    chat_scores: Path, chat_model: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    store, model = ScoreSet.open(str(chat_scores)), load_float32(chat_model)
    rows = _rows(store)
    assert len(rows) == 40
    n_losses = 0
    for chat in _chats():
        row = rows[chat["id"]]
        expected = tokenizer.apply_chat_template(
            chat["messages"], chat_template=TEMPLATE, return_dict=True, return_assistant_tokens_mask=True
        )
        assert row["input_ids"] == expected["input_ids"]
        counts = np.array(expected["assistant_masks"], bool)
        losses = plain_losses(model, row["input_ids"], prefix=None, context=32, overlap=8)
        np.testing.assert_allclose(
            np.array(row["loss"], np.float32), np.where(counts, losses, np.nan), rtol=1e-3, atol=1e-3
        )
        assert [value is not None for value in row["entropy"]] == counts.tolist()
        n_losses += int(counts.sum())
    total = store.summary
    assert total["losses"] == n_losses
    assert total["tokens"] == sum(len(row["input_ids"]) for row in rows.values()) > n_losses
    assert (total["documents"], total["scored"], total["quarantined"]) == (44, 40, 4)
    assert store.manifest["parts"]["prefix_id"] is None
    reasons = {
        row["doc_id"]: row["reason"]
        for path in (chat_scores / "quarantine").iterdir()
        for row in pq.read_table(path).to_pylist()
    }
    assert reasons["sharegpt"].endswith("message 0 has no role (its keys: from, value). Name them role and content")
    assert reasons["null"].endswith("column 'messages' is null")
    assert reasons["none"].endswith("column 'messages' is an empty list")
    assert reasons["number"].endswith("the content of message 0 is int, not a string")


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    chat_scores: Path, chats: Path, chat_model: Path, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(chat_scores, tmp_path / "again"))
    data = sorted((again / "data").iterdir())
    for path in [*data[::2], again / "_SUCCESS.json"]:
        path.unlink()
    options = {"messages_column": "messages", "signals": ("entropy",), "workers": "2", **COLUMN}
    assert score_into(chats, again, chat_model, **options).computed == len(data[::2])
    assert digests(again) == digests(chat_scores)
    with pytest.raises(InputError, match=r"roles: there \['assistant'\], now \['user'\]"):
        score_into(chats, again, chat_model, **options, roles=("user",))


def test_context_is_never_selected_and_never_a_label(chat_scores: Path, tmp_path: Path) -> None:
    total = select(SelectConfig(ref=str(chat_scores), output=str(tmp_path / "all"), ratio=1.0)).total
    scores = ScoreSet.open(str(chat_scores))
    assert total.tokens_kept == total.tokens_scored == scores.summary["losses"] < total.tokens
    some = select(SelectConfig(ref=str(chat_scores), output=str(tmp_path / "some"), ratio=0.5)).total
    assert some.tokens_kept == round(0.5 * scores.summary["losses"])
    kept, rows = _rows(Selection.open(str(tmp_path / "some"))), _rows(scores)
    for doc_id, row in kept.items():
        has_loss = np.array([loss is not None for loss in rows[doc_id]["loss"]])
        assert not (np.array(row["mask"], bool) & ~has_loss).any()
    export(ExportConfig(selection=str(tmp_path / "all"), output=str(tmp_path / "labels"), format="labels"))
    blocks = [
        row for path in sorted((tmp_path / "labels").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]
    n_labels = sum(label != -100 for block in blocks for label in block["labels"])
    assert 0 < n_labels <= scores.summary["losses"]


def test_the_documents_that_are_kept_are_exported_with_their_chats(
    chat_scores: Path, chats: Path, tmp_path: Path
) -> None:
    config = SelectConfig(ref=str(chat_scores), output=str(tmp_path / "half"), ratio=0.5, level="document")
    total = select(config).total
    n_kept = total.documents_kept
    assert 0 < n_kept < 40
    scores, n_tokens = _rows(ScoreSet.open(str(chat_scores))), 0
    for doc_id, row in _rows(Selection.open(config.output)).items():
        counts = [loss is not None for loss in scores[doc_id]["loss"]]
        assert row["mask"] == (counts if row["kept"] else [False] * len(counts))
        n_tokens += sum(row["mask"])
    assert total.tokens_kept == n_tokens
    budget = replace(config, output=str(tmp_path / "budget"), ratio=None, tokens=n_tokens)
    assert select(budget).total.tokens_kept == n_tokens
    export(ExportConfig(selection=config.output, output=str(tmp_path / "rows"), format="jsonl"))
    lines = [
        json.loads(line) for path in (tmp_path / "rows").rglob("*.jsonl") for line in path.read_text().splitlines()
    ]
    by_id = {chat["id"]: chat["messages"] for chat in _chats()}
    assert len(lines) == n_kept
    assert all(line["messages"] == by_id[line["id"]] for line in lines)


PAIRS = [
    {"id": f"p{i}", "prompt": some_text(i % 5, i), "answer": " " + some_text(1 + i % 6, 70 + i)} for i in range(12)
]


@pytest.mark.parametrize("kind", ["response", "prefixed"])
def test_a_response_is_scored_behind_its_prompt(
    kind: str, ray_cluster: str, make_model: Callable[[int], Path], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [*PAIRS, {"id": "null", "prompt": None, "answer": "the model"}]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:6]), tmp_path / "in" / "a.parquet")
    (tmp_path / "in" / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[6:]))
    options: dict[str, Any] = {"prompt_column": "prompt", "response_column": "answer"}
    if kind == "prefixed":
        options = {"prefix_column": "prompt", "text_column": "answer"}
    score_into(tmp_path / "in", tmp_path / "out", make_model(1), **options, **COLUMN)
    store, model = ScoreSet.open(str(tmp_path / "out")), load_float32(make_model(1))
    scored = _rows(store)
    assert ("null" in scored) == (kind == "prefixed")  # a response needs its prompt
    for row in rows[: len(scored)]:
        before, ids = row["prompt"] or "", scored[row["id"]]["input_ids"]
        assert ids == tokenizer(before + row["answer"], add_special_tokens=False)["input_ids"]
        losses = plain_losses(model, ids, prefix=0, context=32, overlap=8)
        # the text before the boundary takes as many tokens by itself, because words begin with their space
        n_before = len(tokenizer(before, add_special_tokens=False)["input_ids"])
        losses[:n_before] = np.nan
        np.testing.assert_allclose(np.array(scored[row["id"]]["loss"], np.float32), losses, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["response", "messages"])
def test_what_a_context_tells_of_a_response_can_be_ranked(
    kind: str, ray_cluster: str, chat_model: Path, chats: Path, tmp_path: Path
) -> None:
    """The gain of a token is its loss without the context minus its loss behind it."""
    source, options = chats / "a.parquet", {"messages_column": "messages", **COLUMN}
    if kind == "response":
        source = tmp_path / "pairs.parquet"
        pq.write_table(pa.Table.from_pylist(PAIRS), source)
        options = {"prompt_column": "prompt", "response_column": "answer", **COLUMN}
    options |= {"precision": "float32"}
    score_into(source, tmp_path / "seen", chat_model, **options)
    score_into(source, tmp_path / "hidden", chat_model, hide_context=True, **options)
    command = SelectConfig(
        output=str(tmp_path / "gain"), ref=str(tmp_path / "seen"), base=str(tmp_path / "hidden"), ratio=0.4
    )
    total = select(command).total
    seen, hidden = (ScoreSet.open(str(tmp_path / name)) for name in ("seen", "hidden"))
    assert seen.summary["losses"] == hidden.summary["losses"] == total.tokens_scored
    assert hidden.manifest["parts"]["prefix_id"] == seen.manifest["parts"]["prefix_id"]
    model, behind, alone = load_float32(chat_model), _rows(seen), _rows(hidden)
    every: list[np.ndarray] = []
    for doc_id, row in _rows(Selection.open(command.output)).items():
        counts = np.array([loss is not None for loss in behind[doc_id]["loss"]])
        ids = np.array(row["input_ids"])
        expected = np.full(len(ids), np.nan)
        expected[counts] = plain_losses(model, ids[counts].tolist(), prefix=0, context=32, overlap=8)
        np.testing.assert_allclose(np.array(alone[doc_id]["loss"], float), expected, rtol=1e-4, atol=1e-4)
        if kind == "response":
            expected -= np.where(counts, plain_losses(model, ids.tolist(), prefix=0, context=32, overlap=8), np.nan)
            np.testing.assert_allclose(np.array(row["excess"], float), expected, rtol=1e-3, atol=1e-3)
        every.append(np.array(row["excess"], float)[np.array(row["mask"], bool)])
    gains = np.concatenate([np.array(row["excess"], float) for row in _rows(Selection.open(command.output)).values()])
    best = np.sort(gains[~np.isnan(gains)])[::-1][: total.tokens_kept]
    np.testing.assert_array_equal(np.sort(np.concatenate(every))[::-1], best)


@pytest.mark.parametrize("prefix", ["auto", "0"])
def test_token_ids_are_scored_as_they_are(
    prefix: str, scores: dict[str, Path], make_model: Callable[[int], Path], tmp_path: Path
) -> None:
    """The ids of a corpus that was scored as text have the same losses behind the same prefix."""
    texts = [row for row in _rows(ScoreSet.open(str(scores["ref"]))).values() if row["input_ids"]]
    rows = [{"id": row["doc_id"], "ids": row["input_ids"]} for row in texts] + [{"id": "beyond", "ids": [5, 400]}]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "a.parquet", row_group_size=10)
    score_into(tmp_path / "in", tmp_path / "out", make_model(1), ids_column="ids", prefix=prefix, **COLUMN)
    store, model = ScoreSet.open(str(tmp_path / "out")), load_float32(make_model(1))
    scored = _rows(store)
    assert len(scored) == len(texts)
    for row in texts:
        assert scored[row["doc_id"]]["input_ids"] == row["input_ids"]
        if prefix == "0":
            assert scored[row["doc_id"]]["loss"] == row["loss"]
    if prefix == "auto":  # ids bring their own prefix, if any
        expected = plain_losses(model, texts[0]["input_ids"], prefix=None, context=32, overlap=8)
        found = np.array(scored[texts[0]["doc_id"]]["loss"], np.float32)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    (lost,) = (row for path in (tmp_path / "out" / "quarantine").iterdir() for row in pq.read_table(path).to_pylist())
    assert lost == {"doc_id": "beyond", "reason": "token 1 is 400, but the model has ids from 0 to 399 alone"}


def test_a_plan_tells_the_tokens_that_count(chats: Path, chat_model: Path, chat_scores: Path) -> None:
    said = estimate(PlanConfig(input=str(chats), messages_column="messages", id_column="id", model=str(chat_model)))
    total = ScoreSet.open(str(chat_scores)).summary
    lines = {line.split("  ")[0].strip(): line for line in said.splitlines()}
    assert f"{total['tokens']:,}  exact" in lines["tokens"]
    assert f"{total['losses'] / total['tokens']:.1%}" in lines["that count"]


def test_verify_compares_the_tokens_that_count(
    chats: Path, chat_model: Path, chat_scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["score", str(chats), str(tmp_path / "out"), "--model", str(chat_model), "--messages-column", "messages"]
    options = ["--id-column", "id", "--context", "32", "--no-compile", "--dtype", "float32", "--gpus-per-worker", "0"]
    assert main([*command, *options, "--verify", "100"]) == 0
    said = capsys.readouterr().out
    losses = f"{ScoreSet.open(str(chat_scores)).summary['losses']:,}"
    assert f"verified 40 documents, {losses} tokens" in said
    assert main([*command, *options, "--verify", "100", "--hide-context"]) == 0
    assert f"verified 40 documents, {losses} tokens" in capsys.readouterr().out


def test_units_are_cut_by_all_that_a_document_holds(tmp_path: Path) -> None:
    rows = [{"prompt": "a long prompt " * 100, "response": "yes"}] * 20
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=5, use_dictionary=False)
    pair = {"prompt_column": "prompt", "response_column": "response"}
    assert len(make_plan(CorpusConfig(input=str(tmp_path), unit_bytes=10_000, **pair)).units) == 2
    assert len(make_plan(CorpusConfig(input=str(tmp_path), unit_bytes=10_000, text_column="response")).units) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt_column": "a"}, "^--prompt-column is no kind of document. Give --ids-column, or"),
        ({"messages_column": "a", "prefix_column": "b"}, "--messages-column with --prefix-column is no kind"),
        ({"messages_column": "a", "text_column": "b"}, "--text-column b does not go with --messages-column"),
        ({"roles": ("user",)}, "--roles is for chats"),
        ({"chat_date": "2026-01-02"}, "--chat-date is for chats"),
        ({"messages_column": "messages", "chat_date": "today"}, "--chat-date takes a day as YYYY-MM-DD, got 'today'"),
        (
            {"messages_column": "chat"},
            r"no column 'chat'; there are: id, messages\. Name the right one with --messages-column",
        ),
        ({"prompt_column": "prompt", "response_column": "id"}, r"no column 'prompt'; .* with --prompt-column"),
        ({"prefix_column": "messages", "text_column": "id"}, "has type list.*, not string"),
        ({"text_column": "id", "hide_context": True}, "^--hide-context is for prompts, prefixes, chats and pairs"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    options: dict[str, Any], words: str, chats: Path, chat_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        score_into(chats / "a.parquet", tmp_path / "out", chat_model, **options, **COLUMN)
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_template_is_refused(chats: Path, make_model: Callable[[int], Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no chat template"):
        score_into(chats, tmp_path / "out", make_model(1), messages_column="messages", **COLUMN)
    assert not (tmp_path / "out").exists()
