"""What `rho-score plan` prints: what a run would read and cost.

Figures that were counted are reported as exact, estimates as about.
"""

from rho_score.config import PlanConfig
from rho_score.corpus.layouts import hint
from rho_score.corpus.plan import Plan, left_out, make_plan
from rho_score.errors import InputError
from rho_score.safe_text import visible
from rho_score.scoring.estimate import Estimate, count
from rho_score.scoring.prices import NodeType, check_prices, read_prices
from rho_score.scoring.projection import DAY_S, HOUR_S, Offer, Speed, Work, cheapest, run_seconds
from rho_score.scoring.sent_tokens import SentTokens


def estimate(config: PlanConfig) -> str:
    """Returns the figures of a run as text to print: shards, units, documents, bytes and tokens.

    With a speed it also gives the worker-hours, and with a price the cost. With `config.calibrate`
    it measures the speed.

    Raises:
        InputError: the corpus or the model's tokenizer cannot be read, or every document that was
            read would be quarantined.
        RhoScoreError: the model does not run.
    """
    check_prices(config)
    if config.calibrate is not None:
        return "\n".join(_calibrated(config))
    if config.prices is not None:
        raise InputError("--prices needs a speed that was measured: give --calibrate SECONDS.")
    sent = None if config.price_per_million_tokens is None else SentTokens(config)
    plan = make_plan(config)
    found = count(config, plan, sent)
    lines = [*_lines(config, plan, found), *_price(config, found, sent)]
    return "\n".join([*lines, *_costs(config, found.tokens)])


def _calibrated(config: PlanConfig) -> list[str]:
    from rho_score.scoring.calibrate import (  # brings torch and Ray, which a plan does without
        calibrate,
        check_calibrate,
    )

    check_calibrate(config)
    nodes = read_prices(config.prices)
    plan = make_plan(config)
    found = count(config, plan)
    work = Work(tokens=found.tokens, units=len(plan.units))
    return [*_lines(config, plan, found), *calibrated_lines(config, work, calibrate(config, plan), nodes)]


def _lines(config: PlanConfig, plan: Plan, found: Estimate) -> list[str]:
    every = "exact: every document was read"
    some = f"about: from {found.read:,} documents that were read"
    rows_known = all(unit.rows is not None for unit in plan.units)
    documents = (
        every
        if found.text_exact
        else "exact: from footers"
        if rows_known
        else "exact: from footers, and by reading all other shards"
    )
    tokens = "about: 4 bytes a token; give --model for a better figure"
    counted = f"tokenizer of {config.model}" if config.model else "whose ids were counted"
    if found.tokens_exact:
        tokens = f"exact: {counted}"
    elif found.sampled:
        tokens = f"about: from {found.sampled:,} documents, {counted}"
    lines = [
        f"shards       {len({unit.shard for unit in plan.units}):>16,}  in {visible(plan.root)}",
        f"units        {len(plan.units):>16,}  of about {config.unit_bytes:,} bytes of text; one file each",
        f"documents    {found.documents:>16,}  {documents if found.documents_exact else some}",
        f"text bytes   {found.text_bytes:>16,}  {every if found.text_exact else some}",
        f"tokens       {found.tokens:>16,}  {tokens}",
    ]
    if found.sampled and found.counting < 1:
        lines.append(f"that count   {found.counting:>16.1%}  of the tokens; the others are context, without a loss")
    if found.errors:
        of_read = "documents" if found.text_exact else "documents that were read"
        first = visible(found.first_error)
        lines.append(f"quarantine   {found.errors:>16,}  of {found.read:,} {of_read}, the first: {first}")
    for what, names in (("not shards", plan.not_shards), ("empty shards", plan.empty_shards)):
        if names:
            lines.append(f"{what:<12} {len(names):>16,}  {left_out(names)}{hint(names, config)}")
    return lines


def _price(config: PlanConfig, found: Estimate, sent: SentTokens | None) -> list[str]:
    if config.price_per_million_tokens is None or sent is None:
        return []
    n_sent = round(found.tokens * found.sent)
    money = (n_sent + sent.check) * config.price_per_million_tokens / 1e6
    return [
        f"tokens sent  {n_sent:>16,}  {'at most' if found.tokens_exact else 'about'}: {sent}",
        f"check        {sent.check:>16,}  tokens that the check of the server takes at each start",
        f"price        {money:>16,.6g}  at {config.price_per_million_tokens:g} a million tokens",
    ]


def _costs(config: PlanConfig, tokens: int) -> list[str]:
    if config.price_per_million_tokens is not None and not config.tokens_per_second:
        return []
    if not config.tokens_per_second:
        return ["worker-hours: score a small part first and give its speed with --tokens-per-second"]
    hours = tokens / config.tokens_per_second / 3600
    lines = [f"worker-hours {hours:>16,.2f}  at {config.tokens_per_second:,.0f} tokens/s a worker"]
    if config.price_per_hour is not None:
        lines.append(f"cost         {hours * config.price_per_hour:>16,.2f}  at {config.price_per_hour} a worker-hour")
    return lines


def calibrated_lines(config: PlanConfig, work: Work, speed: Speed, nodes: tuple[NodeType, ...]) -> list[str]:
    """Returns what was measured, and what a run takes and costs with each number of workers."""
    over = f"{speed.units:,} units" if speed.units else "a part of a unit"
    lines = [
        f"start-up     {speed.start_s:>16,.1f}  seconds from a worker's start to its first unit, the model's loading included",
        f"speed        {speed.tokens_per_s:>16,.0f}  tokens/s of a worker, units {speed.slowest:,.0f} to {speed.fastest:,.0f}: "
        f"measured on {over} in {speed.seconds:,.0f} s",
    ]
    if speed.cpus and not speed.gpus and not config.cpus_per_worker:
        lines.append(
            f"measured     {speed.cpus:>16,}  CPUs: give the run --cpus-per-worker {speed.cpus} for workers of this speed"
        )
    money = "" if config.price_per_hour is None else f"  cost at {config.price_per_hour:g} a worker-hour"
    lines.append(f"workers      {'days':>16}  {'worker-hours':>16}{money}")
    for workers in config.workers:
        seconds = run_seconds(work, speed.tokens_per_s, speed.start_s, workers)
        hours = workers * seconds / HOUR_S
        cost = "" if config.price_per_hour is None else f"  {hours * config.price_per_hour:,.2f}"
        lines.append(f"{workers:>12,} {seconds / DAY_S:>16,.2f}  {hours:>16,.2f}{cost}")
    for workers in config.workers:
        for spot in (False, True):
            if (best := cheapest(nodes, work, speed, workers, spot=spot)) is not None:
                lines.append(_best(best, workers, spot=spot))
    if unknown := [node for node in nodes if node.relative_speed is None]:
        lines.append(
            f"node types: {len(unknown)} of {len(nodes)} are left out, because their relative_speed is not filled in "
            f"({'--prices ' + config.prices if config.prices else 'give a table of yours with --prices'})"
        )
    lines.append(
        "included: the start of each worker, and that some have no unit at the end. Not included: waiting for nodes, the start "
        "of Ray, what is scored again after nodes vanish, storage that is slower than here, and text that is unlike the sample."
    )
    return lines


def _best(best: Offer, workers: int, *, spot: bool) -> str:
    price = "spot" if spot else "on demand"
    return (
        f"cheapest     {best.cost:>16,.2f}  {price} with {workers:,} workers: {best.nodes:,} x {visible(best.node.name)}, "
        f"{best.seconds / DAY_S:,.2f} days"
    )
