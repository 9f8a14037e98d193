"""`rho-score plan | score | select | curve | dynamics | export | report`: parse into a frozen dataclass, make one library call, print what came out.

A configuration file (`--config FILE`, YAML) holds the same options under the same names; flags given beside it win.
"""

import dataclasses
import functools
import itertools
import logging
import operator
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NoReturn, get_origin, get_type_hints

import tyro
import yaml
from typeguard import TypeCheckError, check_type

from rho_score.accounts import GroupAccounts
from rho_score.config import (
    CurveConfig,
    DynamicsConfig,
    ExportConfig,
    PlanConfig,
    ReportConfig,
    ScoreConfig,
    SelectConfig,
)
from rho_score.errors import InputError, RhoScoreError
from rho_score.shown import visible, visible_lines, without_secrets

QUARANTINED = 3
SHOWN = 5  # quarantined documents that are printed
REPEATED = {"ref", "share", "quota"}
_KINDS: dict[str, Any] = {
    "plan": PlanConfig,
    "score": ScoreConfig,
    "select": SelectConfig,
    "curve": CurveConfig,
    "dynamics": DynamicsConfig,
    "export": ExportConfig,
    "report": ReportConfig,
}

EXAMPLES = {
    "plan": """Say what a run would do and cost; run nothing.

Example: rho-score plan s3://corpora/web --model HuggingFaceTB/SmolLM2-135M""",
    "score": """Score every token of a corpus with one model; write a score set. Run the same command again to resume.

Example, on this machine: rho-score score corpus/ scores/ref --model models/ref --group-column source

Example, how far from float32 its scores would be: rho-score score corpus/ scores/ref --model models/ref --verify 50

Example, on a cluster: rho-score score s3://corpora/web s3://scores/web-ref --model my-org/ref --workers 1:200 --gpus-per-worker 1

Exit codes: 0 all done; 1 failed; 2 wrong usage or input, nothing was run; 3 done, but documents were quarantined.""",
    "select": """Keep the tokens (or documents) that score best over the whole corpus; write a selection. Reads scores, never a model.

Example, the method of Rho-1: rho-score select --ref scores/ref --base scores/base selection --ratio 0.6

Example, what would that keep? rho-score select --ref scores/ref --base scores/base selection --ratio 0.6 --dry-run

Example, the best billion tokens as whole documents: rho-score select --ref scores/ref selection --tokens 1000000000 --level document

Example, without the 5 % noisiest: rho-score select --ref scores/ref --base scores/base selection --ratio 0.6 --drop-top 0.05

Example, quotas: rho-score select --ref scores/ref --base scores/base selection --quota code=0.8 --quota web=5000000000 --quota '*=0.5'

Example, two experts: rho-score select --ref math=scores/math --ref code=scores/code --base scores/base selection --combine union --ratio 0.3 --share code=0.5

Ties at the threshold go to the first in corpus order: shard's name, place in the shard, place in the document.""",
    "curve": """Print what every ratio, budget or threshold would keep, per group, from the histogram of a selection: reads no scores.

Example: rho-score curve selection

Example: rho-score curve selection --tokens 1000000000 5000000000 --threshold 0 0.5 --plot curve.svg --csv curve.csv""",
    "dynamics": """Sort every token by how its loss went over checkpoints of one model: H-H, L-H, H-L (learnt), L-L; write a selection.

Example: rho-score dynamics --scores scores/step-1000 scores/step-5000 scores/step-20000 dynamics --plot dynamics.svg

Example, train on what was learnt or stays hard: rho-score dynamics --scores scores/c0 scores/c1 dynamics --keep H-L H-H""",
    "export": """Write a selection in a form that trainers read.

Example, for Hugging Face's Trainer, in blocks: rho-score export selection train --format labels --block-size 2048

Example, nanoGPT's .bin with a mask: rho-score export selection train --format bin

Example, the kept documents with all their own columns: rho-score export sel-documents corpus-kept --format parquet""",
    "report": """Write one self-contained HTML page about a score set or a selection. Needs the stores only: no model, no corpus.

Example: rho-score report selection report.html""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (0 done, 1 failed, 2 wrong usage or input, 3 done with quarantine)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("httpx", "httpcore", "ray", "datasets", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        config = parse(arguments)
        return _RUN[type(config)](config)
    except RhoScoreError as error:
        return _fail(error)
    except (OSError, ImportError) as error:  # the storage refuses, or an extra is not installed
        return _fail(RhoScoreError(f"{type(error).__name__}: {error}"))
    except Exception:  # a fault of ours: as Python tells it, but for what a terminal or a log must not be shown
        print(_fit(traceback.format_exc()), end="", file=sys.stderr)
        return RhoScoreError.exit_code


def _fit(text: str) -> str:
    """`text` as it may be shown: without credentials, control characters visible."""
    return visible_lines(without_secrets(text))


def _say(text: str = "") -> None:
    print(_fit(text))


class _Formatter(logging.Formatter):
    """Log lines that may be shown."""

    def format(self, record: logging.LogRecord) -> str:
        return _fit(super().format(record))


def parse(arguments: list[str]) -> Any:
    """The configuration that these arguments mean; prints and exits as command lines do (`--help`: 0, wrong usage: 2).

    Raises:
        InputError: the configuration file is not there, or has an unknown option or a value of another type.
    """
    arguments, file = _take_config_file(arguments)
    command = arguments[0] if arguments else ""
    given = {command: _from_file(_KINDS[command], file, arguments)} if file and command in _KINDS else {}
    choices = tuple(
        Annotated[
            kind,
            tyro.conf.subcommand(
                name, description=EXAMPLES[name], **({"default": given[name]} if name in given else {})
            ),
        ]
        for name, kind in _KINDS.items()
    )
    union: Any = functools.reduce(operator.or_, choices)
    return tyro.cli(
        union,
        prog="rho-score",
        description="Score every token of a corpus with a reference model on Ray; select tokens by a global quantile.\n\n"
        "Every command also takes --config FILE: the same options as YAML; flags win over the file.",
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )


def _take_config_file(arguments: list[str]) -> tuple[list[str], str | None]:
    for i, argument in enumerate(arguments):
        if argument == "--config" and i + 1 < len(arguments):
            return arguments[:i] + arguments[i + 2 :], arguments[i + 1]
        if argument.startswith("--config="):
            return arguments[:i] + arguments[i + 1 :], argument.removeprefix("--config=")
    return arguments, None


class _Yaml(yaml.SafeLoader):
    """YAML without base-60 integers: `1:32` is text here, not 92."""


_INTEGER = "tag:yaml.org,2002:int"
_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _INTEGER]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(_INTEGER, re.compile(r"[-+]?[0-9][0-9_]*$"), list("-+0123456789"))


def _from_file(kind: Any, path: str, arguments: Sequence[str]) -> Any:
    """A configuration with the file's values, what it leaves out still to be given; of repeated options the flags' alone."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            content = yaml.load(file, _Yaml) or {}
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no such day
        raise InputError(f"--config {path} cannot be read: {error}") from error
    hints = get_type_hints(kind)
    if not isinstance(content, dict):
        raise InputError(f"--config {path}: a mapping of options to values is wanted, not a {type(content).__name__}.")
    values = {str(name).replace("-", "_"): value for name, value in content.items()}
    flags = {argument.partition("=")[0].lstrip("-").replace("-", "_") for argument in arguments}
    values = {name: value for name, value in values.items() if not (name in REPEATED and name in flags)}
    if unknown := sorted(values.keys() - hints.keys()):
        raise InputError(f"--config {path}: no option {', '.join(unknown)}; there are: {', '.join(hints)}.")
    for name, value in values.items():
        if hints[name] is str and type(value) is int:
            value = values[name] = str(value)  # workers: 4
        if get_origin(hints[name]) is tuple and isinstance(value, list | str):
            value = values[name] = (value,) if isinstance(value, str) else tuple(value)
        try:
            check_type(value, hints[name])
        except TypeCheckError as error:
            raise InputError(f"--config {path}: {name}: {value!r}: {error}") from error
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
            values.setdefault(field.name, tyro.MISSING)
    return kind(**values)


def _fail(error: RhoScoreError) -> int:
    print(_fit(f"rho-score: {error}"), file=sys.stderr)
    return error.exit_code


def _plan(config: PlanConfig) -> int:
    from rho_score.estimate import estimate

    _say(estimate(config))
    return 0


def _score(config: ScoreConfig) -> int:
    from rho_score.score import score, verify

    if config.verify is not None:
        _say(str(verify(config)))
        return 0
    summary = score(config)
    accounts = summary.accounts
    if summary.computed == 0:
        _say(f"{summary.output} is finished already; nothing to do.")
    else:
        rate = summary.computed_tokens / summary.wall_s
        _say(
            f"scored {summary.computed} of {summary.units} units in {summary.wall_s:.0f} s "
            f"({summary.computed_tokens:,} tokens, {rate:,.0f} tokens/s from start to end; once loaded the model ran "
            f"{summary.busy_share:.1%} of the time; padding {summary.padding_share:.1%})"
        )
    mean = accounts.total_nats / accounts.losses if accounts.losses else float("nan")
    _say(
        f"documents in {accounts.documents:,} = scored {accounts.scored:,} + quarantined {accounts.quarantined:,}; "
        f"{accounts.tokens:,} tokens, mean loss {mean:.4f} nats"
    )
    _print_retries(summary.retries)
    if accounts.rescored:
        _say(f"{accounts.rescored:,} of them overflowed in the run's dtype and were scored again in a wider one")
    if accounts.quarantined:
        _print_quarantined(summary.output, accounts.quarantined)
        return 0 if config.allow_quarantine else QUARANTINED
    return 0


def _print_quarantined(output: str, n_documents: int) -> None:
    from rho_score.storage import Folder
    from rho_score.store import quarantined_documents

    for doc_id, reason in itertools.islice(quarantined_documents(Folder(output), SHOWN), SHOWN):
        _say(f"  quarantined: {visible(doc_id)[:80]}: {visible(reason)[:200]}")
    more = f"and {n_documents - SHOWN:,} more; " if n_documents > SHOWN else ""
    _say(f"{more}all reasons are in {output}/quarantine/ (columns doc_id, reason)")


def _select(config: SelectConfig) -> int:
    from rho_score.select import select

    summary = select(config)
    if config.dry_run:
        _say("a dry run: this is what would be kept; nothing was written")
    elif summary.computed == 0:
        _say(f"{summary.output} is finished already; nothing to do.")
    if summary.units < summary.planned:
        _say(f"{summary.units:,} of {summary.planned:,} units: what is published of score sets that are not finished")
    whole = summary.thresholds.get(None) if not summary.per_group else None
    _print_groups(summary.groups, summary.total, summary.threshold_of, whole)
    for row in summary.cuts:
        if row["expert"] is not None:
            place = visible(row["expert"] + (f", {row['group']}" if summary.per_group else ""))
            threshold = "nothing" if row["threshold"] is None else f"{row['threshold']:.6g}"
            _say(f"{place:<24} threshold {threshold}, {row['kept']:,} {config.level}s kept of its own")
    if summary.approximate:
        _say("Figures of groups share the tokens at the threshold in proportion; exact once written.")
    _print_retries(summary.retries)
    if unaligned := summary.total.documents_unaligned:
        _say(f"{unaligned:,} documents have no score: the tokenizers do not read them alike.")
    for group, accounts in [*summary.groups.items(), ("all", summary.total)]:
        if (ref := accounts.bits_per_byte("ref")) is not None and (group is not None or len(summary.groups) > 1):
            base = accounts.bits_per_byte("base") if config.base else None
            more = "" if base is None else f", base {base:.4f}"
            _say(f"{visible(group or '(none)'):<24.24} bits per byte: reference {ref:.4f}{more}")
    return 0


def _print_retries(retries: Mapping[str, int]) -> None:
    if retries:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(retries.items()))
        _say(f"storage: {sum(retries.values()):,} calls were made again ({kinds})")


def _print_groups(
    groups: dict[str | None, GroupAccounts],
    total: GroupAccounts,
    threshold_of: Callable[[str | None], float | None],
    whole: float | None,
) -> None:
    _say(f"{'group':<24} {'documents':>12} {'tokens':>16} {'kept':>16} {'share kept':>11} {'threshold':>10}")
    rows = [(visible(group or "(none)"), accounts, threshold_of(group)) for group, accounts in groups.items()]
    for name, accounts, threshold in [*(rows if set(groups) != {None} else []), ("all", total, whole)]:
        _say(
            f"{name:<24.24} {accounts.documents:>12,} {accounts.tokens:>16,} {accounts.tokens_kept:>16,} "
            f"{accounts.share_kept:>11.4f} {'' if threshold is None else f'{threshold:.6g}':>10}"
        )


def _curve(config: CurveConfig) -> int:
    from rho_score.curve import curve

    _say(curve(config))
    for path in (config.plot, config.csv):
        if path:
            _say(f"wrote {path}")
    return 0


def _dynamics(config: DynamicsConfig) -> int:
    from rho_score.dynamics import CATEGORIES, dynamics, plotted

    summary = dynamics(config)
    if summary.computed == 0:
        _say(f"{summary.output} is finished already; nothing to do.")
    _say(f"{'group':<24}" + "".join(f" {category:>9}" for category in CATEGORIES))
    for name, shares in plotted(summary).items():
        _say(f"{visible(name):<24.24}" + "".join(f" {shares[category]:>9.2%}" for category in CATEGORIES))
    total = summary.total
    _say(f"the mask keeps {', '.join(config.keep)}: {total.tokens_kept:,} of {total.tokens:,} tokens")
    if config.plot:
        _say(f"wrote {config.plot}")
    return 0


def _export(config: ExportConfig) -> int:
    from rho_score.export import export

    summary = export(config)
    if summary.computed == 0:
        _say(f"{summary.output} is finished already; nothing to do.")
    _say(f"{summary.output}: {summary.files:,} files, {summary.size:,} bytes, in {summary.wall_s:.0f} s")
    for field in dataclasses.fields(summary.counts):
        _say(f"{field.name.replace('_', ' '):<24} {getattr(summary.counts, field.name):>16,}")
    return 0


def _report(config: ReportConfig) -> int:
    from rho_score.report import report

    _say(f"wrote {report(config)}")
    return 0


_RUN: dict[type, Callable[[Any], int]] = {
    PlanConfig: _plan,
    ScoreConfig: _score,
    SelectConfig: _select,
    CurveConfig: _curve,
    DynamicsConfig: _dynamics,
    ExportConfig: _export,
    ReportConfig: _report,
}


def run() -> NoReturn:
    """Entry point of the console script."""
    sys.exit(main())
