"""Preference pairs: the log-probabilities of their responses, beside those of TRL's own DPOTrainer."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from rho_score.config import ExportConfig, PlanConfig, SelectConfig
from rho_score.corpus.plan import make_plan
from rho_score.errors import InputError
from rho_score.exporting.job import export
from rho_score.scoring.estimate import count
from rho_score.selecting.job import select
from rho_score.stores.score_set import ScoreSet
from tests.conftest import some_text
from tests.ray.conftest import digests, score_into

TEMPLATE = (
    "{% for message in messages %}{{ '[' + message.role + ']' + message.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
COLUMNS = {"id_column": "id", "group_column": None, "context": 64, "overlap": 16}


def _texts() -> list[dict[str, Any]]:
    return [
        {
            "id": f"t{i}",
            "prompt": some_text(1 + i % 4, i),
            "chosen": " " + some_text(1 + i % 5, 100 + i),
            "rejected": " " + some_text(1 + i % 3, 200 + i),
        }
        for i in range(10)
    ]


def _chats(*, prompts: bool) -> list[dict[str, Any]]:
    rows = []
    for row in _texts():
        prompt = [{"role": "user", "content": row["prompt"]}]
        pair = {which: [{"role": "assistant", "content": row[which].strip()}] for which in ("chosen", "rejected")}
        if prompts:
            rows.append({"id": row["id"], "prompt": prompt, **pair})
        else:
            rows.append({"id": row["id"], **{which: prompt + response for which, response in pair.items()}})
    return rows


KINDS = {"texts": _texts(), "chats": _chats(prompts=True), "whole chats": _chats(prompts=False)}


@pytest.fixture(scope="module")
def model(make_model: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = Path(shutil.copytree(make_model(1), tmp_path_factory.mktemp("pairs") / "model"))
    (copy / "chat_template.jinja").write_text(TEMPLATE)
    return copy


def _write(rows: list[dict[str, Any]], folder: Path) -> Path:
    """Half of the rows in Parquet, half in JSON lines."""
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:5]), folder / "a.parquet", row_group_size=2)
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[5:]))
    return folder


def _score(rows: list[dict[str, Any]], folder: Path, model: Path, output: Path, **changes: Any) -> ScoreSet:
    prompts = {"prompt_column": "prompt"} if "prompt" in rows[0] else {}
    options = {**COLUMNS, **prompts, "chosen_column": "chosen", "rejected_column": "rejected", **changes}
    score_into(folder, output, model, **options)
    return ScoreSet.open(str(output))


def _expected(rows: list[dict[str, Any]], model: Path, folder: Path) -> list[tuple[float, float]]:
    """What TRL computes for the pairs."""
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype="float32"),
        args=DPOConfig(
            str(folder), precompute_ref_log_probs=True, max_length=None, report_to=[], use_cpu=True, bf16=False,
            per_device_train_batch_size=4,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
    )  # fmt: skip
    found = trainer.train_dataset
    return list(zip(found["ref_chosen_logps"], found["ref_rejected_logps"], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_trl(kind: str, ray_cluster: str, model: Path, tmp_path: Path) -> None:
    rows = KINDS[kind]
    store = _score(rows, _write(rows, tmp_path / "in"), model, tmp_path / "out")
    assert store.manifest["parts"]["precision"] == "float32"
    assert store.summary["documents"] == 2 * len(rows)
    export(ExportConfig(selection=str(tmp_path / "out"), output=str(tmp_path / "dpo"), format="dpo"))
    lines = [json.loads(line) for path in sorted((tmp_path / "dpo" / "data").iterdir()) for line in path.open()]
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    found = [(line.pop("ref_chosen_logps"), line.pop("ref_rejected_logps")) for line in lines]
    np.testing.assert_allclose(found, _expected(rows, model, tmp_path / "trl"), atol=1e-3)
    assert lines == rows


def test_an_interrupted_run_a_quarantined_response_and_margins(ray_cluster: str, model: Path, tmp_path: Path) -> None:
    rows = [*_texts(), {"id": "null", "prompt": "a", "chosen": None, "rejected": "b"}]
    corpus = _write(rows, tmp_path / "in")
    store = _score(rows, corpus, model, tmp_path / "out", unit_bytes=300)
    assert (store.summary["documents"], store.summary["quarantined"]) == (22, 2)
    before = digests(tmp_path / "out")
    for path in [*sorted((tmp_path / "out" / "data").iterdir())[::2], tmp_path / "out" / "_SUCCESS.json"]:
        path.unlink()
    _score(rows, corpus, model, tmp_path / "out", unit_bytes=300)
    assert digests(tmp_path / "out") == before
    counted = count(
        config := PlanConfig(
            input=str(corpus), prompt_column="prompt", chosen_column="chosen", rejected_column="rejected", id_column="id",
            model=str(model),
        ),
        make_plan(config),
    )  # fmt: skip
    assert (counted.documents, counted.tokens) == (22, store.summary["tokens"])
    options: dict[str, Any] = {"selection": str(tmp_path / "out"), "format": "dpo"}
    summary = export(ExportConfig(output=str(tmp_path / "all"), **options))
    assert (summary.counts.documents, summary.counts.documents_exported) == (20, 20)
    lines = [json.loads(line) for path in sorted((tmp_path / "all" / "data").iterdir()) for line in path.open()]
    margins = {line["id"]: line["ref_chosen_logps"] - line["ref_rejected_logps"] for line in lines}
    middle = float(np.median(list(margins.values())))
    for name, options_of, wanted in (
        ("high", {"min_margin": middle}, {i for i, margin in margins.items() if margin >= middle}),
        ("low", {"max_margin": middle}, {i for i, margin in margins.items() if margin <= middle}),
    ):
        export(ExportConfig(output=str(tmp_path / name), **options, **options_of))
        kept = [json.loads(line) for path in (tmp_path / name / "data").iterdir() for line in path.open()]
        assert {line["id"] for line in kept} == wanted
    select(SelectConfig(ref=str(tmp_path / "out"), output=str(tmp_path / "sel"), ratio=0.5, level="document"))
    with pytest.raises(InputError, match=r"keeps single responses of pairs\. Export the score set with --format dpo"):
        export(ExportConfig(selection=str(tmp_path / "sel"), output=str(tmp_path / "x"), format="jsonl"))
    with pytest.raises(InputError, match="is no score set of pairs"):
        export(ExportConfig(selection=str(tmp_path / "sel"), output=str(tmp_path / "x"), format="dpo"))
    with pytest.raises(InputError, match="--min-margin and --max-margin are for --format dpo, not labels"):
        export(
            ExportConfig(selection=str(tmp_path / "out"), output=str(tmp_path / "x"), format="labels", min_margin=0.0)
        )
