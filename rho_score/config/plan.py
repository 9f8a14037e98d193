"""The options of `rho-score plan`."""

from dataclasses import dataclass
from typing import Annotated

from rho_score.config.corpus import CorpusConfig
from rho_score.config.option import Group, metavar
from rho_score.config.score import ServerKind

_ESTIMATE = Group("Estimate")


@dataclass(frozen=True, kw_only=True)
class PlanConfig(CorpusConfig):
    """Estimate the size, time and cost of a scoring run.

    The plan counts the shards, units, documents and tokens of the corpus, and names the files that
    a run would leave out. If you give the speed of a worker, it also tells the worker-hours.
    Nothing is run or written.
    """

    model: Annotated[str | None, _ESTIMATE, metavar("MODEL")] = None
    """The model whose tokenizer counts the tokens of a sample: a Hugging Face id or a directory.
    Without it, four bytes of text count as one token."""
    trust_remote_code: Annotated[bool, _ESTIMATE] = False
    """Run the Python files that come with the tokenizer. Use this only for models whose code you
    have read."""
    sample_documents: Annotated[int, _ESTIMATE, metavar("N")] = 400
    """How many documents are tokenized. If the corpus has no more than that, its token count is
    exact."""
    tokens_per_second: Annotated[float | None, _ESTIMATE, metavar("N")] = None
    """The speed of one worker in tokens per second, as a run on part of the corpus printed it. The
    plan then tells the worker-hours."""
    price_per_hour: Annotated[float | None, _ESTIMATE, metavar("PRICE")] = None
    """The price of one worker-hour. With --tokens-per-second, the plan then tells the cost."""
    price_per_million_tokens: Annotated[float | None, _ESTIMATE, metavar("PRICE")] = None
    """The price of a million tokens that are sent to a server. The plan then tells how many a run
    with --server sends at most, and what they cost: the overlap of windows, the prefixes, what the
    server must generate and the check of the server are included."""
    server_kind: Annotated[ServerKind, _ESTIMATE] = "vllm"
    """With --price-per-million-tokens: the --server-kind of the run."""
    context: Annotated[int | None, _ESTIMATE, metavar("TOKENS")] = None
    """With --price-per-million-tokens: the --context of the run."""
    overlap: Annotated[int | None, _ESTIMATE, metavar("TOKENS")] = None
    """With --price-per-million-tokens: the --overlap of the run."""
    prefix: Annotated[str, _ESTIMATE, metavar("{auto,none,ID}")] = "auto"
    """With --price-per-million-tokens: the --prefix of the run."""
    hide_context: Annotated[bool, _ESTIMATE] = False
    """With --price-per-million-tokens: the run has --hide-context."""
