"""The options of `rho-score plan`."""

from dataclasses import dataclass
from typing import Annotated

from rho_score.config.corpus import CorpusConfig
from rho_score.config.option import Group, metavar
from rho_score.config.score import Dtype, Quantize, ServerKind

_ESTIMATE = Group("Estimate")
_RUN = Group("Options of the run", "With --price-per-million-tokens or --calibrate: what the run will be given.")
_CALIBRATE = Group("Calibrate", "Runs the model for a while on this hardware. Nothing is written.")


@dataclass(frozen=True, kw_only=True)
class PlanConfig(CorpusConfig):
    """Estimate the size, time and cost of a scoring run.

    The plan counts the shards, units, documents and tokens of the corpus, and names the files that
    a run would leave out. If you give the speed of a worker, it also tells the worker-hours, and with
    --calibrate it measures that speed. Nothing is written.
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
    """The price of one worker-hour. With --tokens-per-second or --calibrate, the plan then tells the
    cost."""
    price_per_million_tokens: Annotated[float | None, _ESTIMATE, metavar("PRICE")] = None
    """The price of a million tokens that are sent to a server. The plan then tells how many a run
    with --server sends at most, and what they cost: the overlap of windows, the prefixes, what the
    server must generate and the check of the server are included."""

    server_kind: Annotated[ServerKind, _RUN] = "vllm"
    """With --price-per-million-tokens: the --server-kind of the run."""
    context: Annotated[int | None, _RUN, metavar("TOKENS")] = None
    """The --context of the run."""
    overlap: Annotated[int | None, _RUN, metavar("TOKENS")] = None
    """The --overlap of the run."""
    prefix: Annotated[str, _RUN, metavar("{auto,none,ID}")] = "auto"
    """The --prefix of the run."""
    hide_context: Annotated[bool, _RUN] = False
    """The run has --hide-context."""

    calibrate: Annotated[float | None, _CALIBRATE, metavar("SECONDS")] = None
    """Score a sample of the corpus with one worker for about so many seconds, once the model is
    loaded. The plan then tells the speed, the time that the start takes, and days, worker-hours and
    cost for each number of workers. Needs --model."""
    workers: Annotated[tuple[int, ...], _CALIBRATE, metavar("N")] = (1, 8, 64)
    """With --calibrate: the numbers of workers to tell the time and the cost for."""
    prices: Annotated[str | None, _CALIBRATE, metavar("FILE")] = None
    """With --calibrate: a table of node types (CSV) with their prices and with their speed relative
    to this hardware. The plan then names the cheapest. By default it is the example table of the
    package, whose speeds are for you to fill in."""
    gpus_per_worker: Annotated[float | None, _CALIBRATE, metavar("N")] = None
    """With --calibrate: the --gpus-per-worker of the run."""
    cpus_per_worker: Annotated[int | None, _CALIBRATE, metavar("N")] = None
    """With --calibrate: the --cpus-per-worker of the run."""
    batch_tokens: Annotated[int | None, _CALIBRATE, metavar("TOKENS")] = None
    """With --calibrate: the --batch-tokens of the run."""
    dtype: Annotated[Dtype, _CALIBRATE] = "auto"
    """With --calibrate: the --dtype of the run."""
    quantize: Annotated[Quantize | None, _CALIBRATE] = None
    """With --calibrate: the --quantize of the run."""
    compile: Annotated[bool, _CALIBRATE] = True
    """With --calibrate: whether the run compiles the model's layers."""
