"""What a run would do and cost, from the plan and a sample of documents."""

from itertools import islice

from rho_score.config import PlanConfig
from rho_score.plan import Plan, Unit, make_plan
from rho_score.read import Columns, Document, documents
from rho_score.shown import visible
from rho_score.storage import Folder
from rho_score.tokenizer import load_tokenizer
from rho_score.tokens import encode

SAMPLED_UNITS = 8
BYTES_PER_TOKEN = 4.0


def estimate(config: PlanConfig) -> str:
    """Shards, units, documents, bytes, tokens, and with a speed and a price worker-hours and cost, as text to print.

    Raises:
        InputError: the corpus or the model's tokenizer cannot be read.
    """
    plan = make_plan(config)
    sampled = _sample(config, plan)
    sample = [document for _, document in sampled]
    texts = [document.text for document in sample if document.text]
    sampled_bytes = _text_bytes(sample)
    if config.model and sampled_bytes:
        tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
        n_tokens = sum(len(ids) for ids in encode(tokenizer, texts))
        bytes_per_token, source = (
            sampled_bytes / max(n_tokens, 1),
            f"{len(texts)} documents, tokenizer of {config.model}",
        )
    else:
        bytes_per_token, source = BYTES_PER_TOKEN, "4 bytes a token; give --model for a better figure"
    text_bytes = sum(unit.text_bytes for unit in plan.units)
    known = [unit.rows for unit in plan.units if unit.rows is not None]
    lines_of = [document for unit, document in sampled if unit.rows is None]
    jsonl_bytes = sum(unit.text_bytes for unit in plan.units if unit.rows is None)
    guessed = jsonl_bytes * len(lines_of) / max(_text_bytes(lines_of), 1)
    tokens = text_bytes / bytes_per_token
    exact = len(known) == len(plan.units)
    lines = [
        f"shards       {len({unit.shard for unit in plan.units}):>16,}  in {visible(plan.root)}",
        f"units        {len(plan.units):>16,}  of about {config.unit_bytes:,} bytes of text; one file each",
        f"documents    {sum(known) + round(guessed):>16,}  {'from footers' if exact else 'JSONL estimated from the sample'}",
        f"text bytes   {text_bytes:>16,}  {'from footers and sizes' if _plain(plan) else 'compressed shards taken as 4 times their size'}",
        f"tokens       {round(tokens):>16,}  estimated: {source}",
    ]
    unreadable = [document for document in sample if document.error]
    if unreadable:
        lines.append(
            f"quarantine   {len(unreadable):>16,}  of {len(sample)} sampled documents, the first: {visible(unreadable[0].error or '')}"
        )
    for what, names in (("not shards", plan.not_shards), ("empty shards", plan.empty_shards)):
        if names:
            lines.append(
                f"{what:<12} {len(names):>16,}  left out: {', '.join(map(visible, names[:3]))}{' …' if len(names) > 3 else ''}"
            )
    if config.tokens_per_second:
        hours = tokens / config.tokens_per_second / 3600
        lines.append(f"worker-hours {hours:>16,.2f}  at {config.tokens_per_second:,.0f} tokens/s a worker")
        if config.price_per_hour is not None:
            lines.append(
                f"cost         {hours * config.price_per_hour:>16,.2f}  at {config.price_per_hour} a worker-hour"
            )
    else:
        lines.append("worker-hours: score a small part first and give its speed with --tokens-per-second")
    return "\n".join(lines)


def _text_bytes(documents: list[Document]) -> int:
    return sum(len((document.text or "").encode()) for document in documents)


def _plain(plan: Plan) -> bool:
    return all(unit.format in (".parquet", ".jsonl") for unit in plan.units)


def _sample(config: PlanConfig, plan: Plan) -> list[tuple[Unit, Document]]:
    """The first documents of a few units spread over the corpus, with their units."""
    step = max(1, len(plan.units) // SAMPLED_UNITS)
    units: list[Unit] = list(plan.units[::step])[:SAMPLED_UNITS]
    columns = Columns(config.text_column, config.id_column, config.group_column)
    per_unit = max(1, config.sample_documents // len(units))
    return [(unit, d) for unit in units for d in islice(documents(Folder(plan.root), unit, columns), per_unit)]
