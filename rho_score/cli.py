"""`rho-score plan | score | select | report`: parse into a frozen dataclass, make one library call, print what came out.

A configuration file (`--config FILE`, YAML) holds the same options under the same names; flags given beside it win.
"""

import dataclasses
import logging
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn, get_type_hints

import tyro
import yaml
from typeguard import TypeCheckError, check_type

from rho_score.config import PlanConfig, ReportConfig, ScoreConfig, SelectConfig
from rho_score.errors import InputError, RhoScoreError
from rho_score.masks import GroupAccounts

QUARANTINED = 3

EXAMPLES = {
    "plan": """Say what a run would do and cost; run nothing.

Example: rho-score plan s3://corpora/web --model HuggingFaceTB/SmolLM2-135M""",
    "score": """Score every token of a corpus with one model; write a score set. Run the same command again to resume.

Example, on this machine: rho-score score corpus/ scores/ref --model models/ref --group-column source

Example, how far from float32 its scores would be: rho-score score corpus/ scores/ref --model models/ref --verify 50

Example, on a cluster: rho-score score s3://corpora/web s3://scores/web-ref --model my-org/ref --workers 1:200 --gpus-per-worker 1

Exit codes: 0 all done; 1 failed; 2 wrong usage or input, nothing was run; 3 done, but documents were quarantined.""",
    "select": """Keep the tokens (or documents) that score best over the whole corpus; write a selection.

Example, the method of Rho-1: rho-score select --ref scores/ref --base scores/base selection --ratio 0.6

Example, the best billion tokens as whole documents: rho-score select --ref scores/ref selection --tokens 1000000000 --level document""",
    "report": """Write one self-contained HTML page about a score set or a selection. Needs the stores only: no model, no corpus.

Example: rho-score report selection report.html""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (0 done, 1 failed, 2 wrong usage or input, 3 done with quarantine)."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
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


def parse(arguments: list[str]) -> Any:
    """The configuration that these arguments mean; prints and exits as command lines do (`--help`: 0, wrong usage: 2).

    Raises:
        InputError: the configuration file is not there, or has an unknown option or a value of another type.
    """
    arguments, file = _take_config_file(arguments)
    command = arguments[0] if arguments else ""
    kinds: dict[str, Any] = {
        "plan": PlanConfig,
        "score": ScoreConfig,
        "select": SelectConfig,
        "report": ReportConfig,
    }
    given = {command: _from_file(kinds[command], file)} if file and command in kinds else {}
    choices = tuple(
        Annotated[
            kind,
            tyro.conf.subcommand(
                name, description=EXAMPLES[name], **({"default": given[name]} if name in given else {})
            ),
        ]
        for name, kind in kinds.items()
    )
    union: Any = choices[0] | choices[1] | choices[2] | choices[3]
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


def _from_file(kind: Any, path: str) -> Any:
    """A configuration with the file's values, what it leaves out still to be given."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            content = yaml.load(file, _Yaml) or {}
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"--config {path} cannot be read: {error}") from error
    hints = get_type_hints(kind)
    if not isinstance(content, dict):
        raise InputError(f"--config {path}: a mapping of options to values is wanted, not a {type(content).__name__}.")
    values = {str(name).replace("-", "_"): value for name, value in content.items()}
    if unknown := sorted(values.keys() - hints.keys()):
        raise InputError(f"--config {path}: no option {', '.join(unknown)}; there are: {', '.join(hints)}.")
    for name, value in values.items():
        if hints[name] is str and type(value) is int:
            value = values[name] = str(value)  # workers: 4
        try:
            check_type(value, hints[name])
        except TypeCheckError as error:
            raise InputError(f"--config {path}: {name}: {value!r}: {error}") from error
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
            values.setdefault(field.name, tyro.MISSING)
    return kind(**values)


def _fail(error: RhoScoreError) -> int:
    print(f"rho-score: {error}", file=sys.stderr)
    return error.exit_code


def _plan(config: PlanConfig) -> int:
    from rho_score.estimate import estimate

    print(estimate(config))
    return 0


def _score(config: ScoreConfig) -> int:
    from rho_score.score import score, verify

    if config.verify is not None:
        print(verify(config))
        return 0
    summary = score(config)
    accounts = summary.accounts
    if summary.computed == 0:
        print(f"{summary.output} is finished already; nothing to do.")
    else:
        rate = summary.computed_tokens / summary.wall_s
        print(
            f"scored {summary.computed} of {summary.units} units in {summary.wall_s:.0f} s "
            f"({summary.computed_tokens:,} tokens, {rate:,.0f} tokens/s from start to end; once loaded the model ran "
            f"{summary.busy_share:.1%} of the time; padding {summary.padding_share:.1%})"
        )
    mean = accounts.total_nats / accounts.losses if accounts.losses else float("nan")
    print(
        f"documents in {accounts.documents:,} = scored {accounts.scored:,} + quarantined {accounts.quarantined:,}; "
        f"{accounts.tokens:,} tokens, mean loss {mean:.4f} nats"
    )
    if accounts.rescored:
        print(f"{accounts.rescored:,} of them overflowed in the run's dtype and were scored again in a wider one")
    if accounts.quarantined:
        print(f"reasons are in {summary.output}/quarantine/ (columns doc_id, reason)")
        return 0 if config.allow_quarantine else QUARANTINED
    return 0


def _select(config: SelectConfig) -> int:
    from rho_score.select import select

    summary = select(config)
    if summary.computed == 0:
        print(f"{summary.output} is finished already; nothing to do.")
    print(f"{'group':<24} {'documents':>12} {'tokens':>16} {'kept':>16} {'share kept':>11} {'threshold':>10}")
    rows: list[tuple[str, GroupAccounts, float | None]] = [
        (group or "(none)", accounts, summary.threshold_of(group)) for group, accounts in summary.groups.items()
    ]
    whole = ("all", summary.total, summary.thresholds.get(None) if not config.per_group else None)
    for name, accounts, threshold in [*(rows if set(summary.groups) != {None} else []), whole]:
        print(
            f"{name:<24.24} {accounts.documents:>12,} {accounts.tokens:>16,} {accounts.tokens_kept:>16,} "
            f"{accounts.share_kept:>11.4f} {'' if threshold is None else f'{threshold:.4f}':>10}"
        )
    return 0


def _report(config: ReportConfig) -> int:
    from rho_score.report import report

    print(f"wrote {report(config)}")
    return 0


_RUN: dict[type, Callable[[Any], int]] = {
    PlanConfig: _plan,
    ScoreConfig: _score,
    SelectConfig: _select,
    ReportConfig: _report,
}


def run() -> NoReturn:
    """Entry point of the console script."""
    sys.exit(main())
