"""The command that says how far a run is."""

import shutil
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from rho_score.cli.output import fit, say
from rho_score.config import StatusConfig
from rho_score.safe_text import visible

if TYPE_CHECKING:
    from rho_score.watching.job import Money, StatusSummary

REASONS = 8
"""Reasons of quarantine that are printed."""
LONGEST = 400
"""Characters of a text of a sign that are printed."""


def run_status(config: StatusConfig) -> int:
    from rho_score.watching.job import WATCH_S, looks

    screen = _Screen(in_place=config.watch is not None and sys.stdout.isatty() and not config.json)
    every = next(iter(config.watch or ()), WATCH_S)
    code = 0
    for summary in looks(config):
        code = summary.exit_code
        if config.json:
            print(orjson.dumps(_told(as_json(summary))).decode(), flush=True)
        else:
            screen.show(described(summary))
        if config.watch is None or summary.state != "running":
            break
        try:
            time.sleep(every)
        except KeyboardInterrupt:  # the usual way to end watching
            break
        if not config.json and not screen.in_place:
            say()
    return code


class _Screen:
    """Prints blocks of lines: each in the place of the one before, or below it."""

    def __init__(self, *, in_place: bool) -> None:
        self.in_place, self._n_lines = in_place, 0

    def show(self, lines: list[str]) -> None:
        """Prints a block."""
        if self.in_place:
            if self._n_lines:
                print(f"\x1b[{self._n_lines}A\x1b[J", end="")
            width = shutil.get_terminal_size().columns
            lines = [fit(line)[:width] for line in lines]
            self._n_lines = len(lines)
        for line in lines:
            say(line)
        sys.stdout.flush()


def as_json(summary: "StatusSummary") -> dict[str, Any]:
    """The summary as the object that `--json` prints. Times are in UTC."""
    found = asdict(summary) | {"exit_code": summary.exit_code}
    if found["sign"] is not None:
        found["sign"] |= {name: _utc(found["sign"][name]) for name in ("started", "written", "moved")}
    found["money"] |= {"for_workers": summary.money.for_workers, "total": summary.money.total}
    return found


def _told(found: Any) -> Any:
    """The object with its texts as they may be shown."""
    if isinstance(found, dict):
        return {fit(name): _told(value) for name, value in found.items()}
    return fit(found) if isinstance(found, str) else found


def described(summary: "StatusSummary") -> list[str]:
    """The lines that are printed: the state first."""
    state, *more = _state(summary)
    lines = [f"{summary.output}: {summary.kind}, {state}", *more, _published(summary), *_doing(summary)]
    if summary.contents.reasons:
        about = "" if summary.contents.reasons_exact else " (about)"
        lines.append(f"quarantined by reason{about}:")
        shown = list(summary.contents.reasons.items())
        lines += [f"  {n:>9,}  {visible(reason)}" for reason, n in shown[:REASONS]]
        if len(shown) > REASONS:
            lines.append(f"  {sum(n for _, n in shown[REASONS:]):>9,}  for {len(shown) - REASONS:,} other reasons")
    if summary.money.worker_hours or summary.money.tokens_sent:
        lines.append(_money(summary.money))
    if summary.clock_ahead_s is not None:
        way = "ahead of" if summary.clock_ahead_s > 0 else "behind"
        lines.append(
            f"the clock of this machine is {_for(abs(summary.clock_ahead_s))} {way} that of the storage or of the run"
        )
    return lines


def _state(summary: "StatusSummary") -> list[str]:
    """The state, with its reason and the remedy. The texts of the sign cannot be trusted."""
    sign, contents = summary.sign, summary.contents
    n_left = 0 if contents.of is None else contents.of - contents.done
    left = f"{n_left:,} {contents.unit} are left. " if n_left > 0 else ""
    again = f"{left}Run the same command again to go on."
    if summary.state == "finished":
        return ["finished" if sign is None or sign.outcome != "finished" else f"finished at {_utc(sign.written)}"]
    if sign is None:
        return ["unknown: no run has left a sign of life here. An older version may have written it.", again]
    who = f"{_shown(sign.command)} on {_shown(sign.host)}, process {sign.pid}"
    if summary.state == "running":
        return [f"running: {who}"]
    if summary.state == "stuck":
        return [
            f"stuck: {who} lives, but nothing has moved for {_for(summary.idle_s or 0.0)}",
            "See what its workers do. To end it, interrupt the command, and run the same command again later.",
        ]
    if summary.state == "dead":
        return [
            f"dead: no sign since {_utc(sign.written)}, {_for(summary.age_s or 0.0)} ago ({who})",
            f"It was killed, stopped or cut off from the storage. {again}",
        ]
    if summary.state == "unknown":
        return [f"unknown: {who} finished, but files were removed since then.", again]
    why = f": {_shown(sign.message)}" if sign.message and summary.state == "failed" else ""
    return [f"{summary.state} at {_utc(sign.written)} ({who}){why}", again]


def _shown(text: str) -> str:
    return visible(text)[:LONGEST]


def _published(summary: "StatusSummary") -> str:
    contents = summary.contents
    of = "" if contents.of is None else f" of {contents.of:,}"
    share = f" ({contents.done / contents.of:.1%})" if contents.of else ""
    about = "" if contents.exact else "about "
    counts = ", ".join(f"{name.replace('_', ' ')} {about}{n:,}" for name, n in contents.counts.items())
    return f"published: {contents.done:,}{of} {contents.unit}{share}" + (f"; {counts}" if counts else "")


def _doing(summary: "StatusSummary") -> list[str]:
    """What a run that lives is doing, by its last sign."""
    from rho_score.cluster.progress import clock, short

    sign, now = summary.sign, summary.doing
    if sign is None or now is None or summary.age_s is None or summary.idle_s is None:
        return []
    facts = [_shown(now.phase)] if now.phase else []
    if now.n_units and not now.phase:
        facts.append(f"{_shown(now.what)} {now.share:.0%}, {now.units:,} of {now.n_units:,} {_shown(now.unit)}")
        if now.tokens:
            facts.append(f"{short(now.tokens)} tokens in this run, {now.tokens_per_s:,.0f} tokens/s")
        stage = "" if now.what == sign.command else " for this stage"
        facts.append("ETA unknown" if summary.eta_s is None else f"ETA {clock(summary.eta_s)}{stage}")
    facts.append(f"workers {now.workers:,}, at most {sign.most_workers:,}")
    return [
        f"last sign {_for(summary.age_s)} ago: {', '.join(facts)}",
        f"last movement {_for(summary.idle_s)} ago; begun {_utc(sign.started)}",
    ]


def _money(money: "Money") -> str:
    """What it has cost, and what that is made of."""
    hours = f"{money.worker_hours:,.4g} worker-hours"
    tokens = f"{money.for_tokens:,.6g} for {money.tokens_sent:,} tokens that were sent to a server"
    if money.for_workers is None:
        return f"so far: {hours}" + (f", and {tokens}" if money.tokens_sent else "")
    made_of = f"{money.for_workers:,.6g} for {hours}"
    if money.price_per_hour is not None:
        made_of += f" at {money.price_per_hour:g}"
    return (
        f"money so far: {money.total:,.6g} = {made_of} + {tokens}" if money.tokens_sent else f"money so far: {made_of}"
    )


def _for(seconds: float) -> str:
    from rho_score.cluster.progress import clock

    return clock(seconds)


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
