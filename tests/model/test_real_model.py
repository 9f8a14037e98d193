"""A real model on real text: the scorer against a plain float32 forward, document by document."""

from pathlib import Path

import numpy as np
import pytest
import torch

from demo.corpus import CURATED_GROUP, build, curated
from demo.model import base_model
from rho_score.config import CorpusConfig
from rho_score.corpus.columns import Columns, Document
from rho_score.corpus.documents import documents
from rho_score.corpus.plan import make_plan
from rho_score.files.folder import Folder
from rho_score.inference.scorer import Scorer
from rho_score.models.encode import encode
from rho_score.models.model_config import resolve_dtype
from rho_score.models.tokenizer import load_tokenizer, prefix_id
from tests.oracle import load_float32, plain_losses

# Mean nats of a document, the rounding of what is stored included.
ALLOWED = {torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 8e-2}


@pytest.fixture(scope="module")
def demo_documents(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    corpus = build(tmp_path_factory.mktemp("demo") / "corpus")
    plan = make_plan(CorpusConfig(input=str(corpus), id_column="id", group_column="source"))
    columns = Columns("text", "id", "source")
    return [document for unit in plan.units for document in documents(Folder(plan.root), unit, columns)]


def test_the_demo_corpus_is_what_it_says(demo_documents: list[Document]) -> None:
    tokenizer = load_tokenizer(str(base_model()))
    lengths = [len(ids) for ids in encode(tokenizer, [d.text for d in demo_documents if d.text is not None])]
    assert sum(lengths) >= 60_000
    assert max(lengths) > 5_000
    assert 0 in lengths
    assert sum(1 for n in lengths if 10 <= n < 100) >= 10
    assert {d.group for d in demo_documents if d.group} == {CURATED_GROUP, "source", "licences", "languages"}
    assert sum(d.error is not None for d in demo_documents) == 3
    assert not {text.id for text in curated()} & {d.doc_id for d in demo_documents}


@pytest.mark.parametrize(
    ("n_documents", "first_tokens", "context", "overlap"),
    [(20, 60, 48, 12), pytest.param(60, 120, 96, 24, marks=pytest.mark.long)],
)
def test_documents_against_a_plain_float32_forward(
    n_documents: int, first_tokens: int, context: int, overlap: int, demo_documents: list[Document]
) -> None:
    model_path: Path = base_model()
    tokenizer = load_tokenizer(str(model_path))
    texts = [d.text for d in demo_documents if d.text]
    chosen = texts[:: max(1, len(texts) // n_documents)][:n_documents]
    ids = [document[:first_tokens] for document in encode(tokenizer, chosen)]
    assert len(ids) == n_documents
    assert sum(len(document) > context for document in ids) >= n_documents // 2  # of two windows
    torch.set_num_threads(2)
    prefix = prefix_id(tokenizer)
    scorer = Scorer(
        str(model_path), dtype=resolve_dtype("auto", gpu=False), context=context, overlap=overlap, prefix_id=prefix,
        batch_tokens=2048,
    )  # fmt: skip
    assert scorer.layout.kind == "packed"
    scored = scorer.score_documents(ids)
    model = load_float32(model_path)
    for document, losses in zip(ids, scored, strict=True):
        expected = plain_losses(model, document.tolist(), prefix=prefix, context=context, overlap=overlap)
        assert len(losses) == len(document)
        stored = losses.astype(np.float16).astype(np.float64)
        assert np.abs(stored - expected).mean() <= ALLOWED[scorer.dtype]
