"""Parses and checks the rule of a selection as the user gave it."""

from collections.abc import Mapping, Sequence

from rho_score.config import SelectConfig
from rho_score.errors import InputError, RhoScoreError
from rho_score.ranking.histogram import Group
from rho_score.ranking.rules import Rule, check_budget, check_share, check_threshold
from rho_score.stores.names import absolute_named


def parse_refs(given: tuple[str, ...]) -> dict[str, str]:
    """URLs of the references by name. A reference without a name is called "ref".

    Raises InputError if a name is taken or no reference is given.
    """
    refs = absolute_named(given, "--ref")
    if "base" in refs:
        raise InputError("a reference cannot be called base, because the base model's scores are. Choose another name.")
    if not refs:
        raise InputError("--ref is missing. Give the score set of a reference model.")
    return refs


def check_rule(config: SelectConfig, refs: list[str]) -> None:
    """Raises InputError if an option is wrong or if options do not go together."""
    _check_amount(config)
    _check_numbers(config)
    union = config.combine == "union" and len(refs) > 1
    parse_shares(config.share, refs)
    parse_quotas(config.quota)
    together = {
        "--share and --expert-masks need --combine union and several --ref": bool(config.share or config.expert_masks)
        and not union,
        "--share needs --ratio, which applies to the references that it does not name. It does not go with --quota, --tokens "
        "or --threshold":
        bool(config.share) and config.ratio is None,
        "--per-group applies a --ratio or a --threshold within each group, but --tokens is a budget for the whole corpus. "
        "Give each group its own budget with --quota": config.per_group and config.tokens is not None,
        "--scope document and --scope batch need --ratio. They do not go with --per-group, --quota, --sample or "
        "--level document":
        config.scope != "corpus"
        and (config.ratio is None or config.per_group or bool(config.quota) or config.sample is not None
             or config.level == "document"),
        "--batch-tokens and --scope batch need each other": (config.scope == "batch")
        != (config.batch_tokens is not None),
        "--document-score needs --level document": config.document_score != "mean" and config.level != "document",
        "--token-ratio and --document-score kept-share need each other": (config.document_score == "kept-share")
        != (config.token_ratio is not None),
        "--sample draws a --ratio or a number of --tokens. It does not go with --threshold or --drop-top": config.sample
        is not None
        and (config.threshold is not None or config.drop_top > 0),
        "--weights grow from the worst score to the best of the whole corpus. They do not go with --scope document or batch, "
        "--sample, --drop-top or --min-run":
        config.weights is not None
        and (config.scope != "corpus" or config.sample is not None or config.drop_top > 0 or config.min_run > 1),
        "--min-run is for tokens and does not go with --level document": config.min_run > 1 and config.level == "document",
    }  # fmt: skip
    for words, wrong in together.items():
        if wrong:
            raise InputError(f"{words}.")


def _check_amount(config: SelectConfig) -> None:
    rules = {"--ratio": config.ratio, "--tokens": config.tokens, "--threshold": config.threshold}
    given = [flag for flag, value in rules.items() if value is not None]
    if config.quota:
        if given:
            raise InputError(f"--quota says how much each group keeps, so leave out {' and '.join(given)}.")
    elif len(given) != 1:
        raise InputError(f"give exactly one of {', '.join(rules)}, got {' and '.join(given) or 'none'}.")


def _check_numbers(config: SelectConfig) -> None:
    shares = {"--ratio": config.ratio, "--drop-top": config.drop_top, "--token-ratio": config.token_ratio}
    for flag, share in shares.items():
        if share is not None:
            check_share(flag, share)
    if config.tokens is not None:
        check_budget(config.tokens)
    if config.threshold is not None:
        check_threshold(config.threshold)
    if not 1e-6 <= config.temperature <= 1e6:
        raise InputError(f"--temperature must be between 0.000001 and 1000000, got {config.temperature}.")
    for flag, number in (
        ("--min-run", config.min_run), ("--batch-tokens", config.batch_tokens), ("--workers", config.workers),
    ):  # fmt: skip
        if number is not None and number < 1:
            raise InputError(f"{flag} must be at least 1, got {number}.")


def parse_quotas(given: Sequence[str]) -> dict[str, Rule]:
    """The rule of each group, from GROUP=SHARE or GROUP=TOKENS.

    Raises InputError if a quota is wrong or given twice.
    """
    quotas: dict[str, Rule] = {}
    for text in given:
        name, number = _pair("--quota", text)
        if name in quotas:
            raise InputError(f"--quota {text}: the group {name} has two quotas. Give it one.")
        quotas[name] = _amount("--quota", text, number)
    return quotas


def parse_shares(given: Sequence[str], references: Sequence[str]) -> dict[str, Rule]:
    """The rule of each reference, from NAME=RATIO.

    Raises InputError if a share is wrong or given twice, or if there is no such reference.
    """
    shares: dict[str, Rule] = {}
    for text in given:
        name, number = _pair("--share", text)
        if name in shares:
            raise InputError(f"--share {text}: the reference {name} has two shares. Give it one.")
        if name not in references:
            raise InputError(f"--share {text}: there is no reference {name!r}. There are: {', '.join(references)}.")
        if (rule := _amount("--share", text, number)).ratio is None:
            raise InputError(f"--share {text}: write the ratio with a decimal point, such as {name}=0.3.")
        shares[name] = rule
    return shares


def rule_of_group(group: Group, quotas: Mapping[str, Rule]) -> Rule:
    """The quota of a group. Raises RhoScoreError if it has none."""
    for name in (group if group is not None else "*", "*"):
        if name in quotas:
            return quotas[name]
    raise RhoScoreError(
        f"--quota says nothing about the group {group!r}. Give it a quota, or give '*=0' for every group that is not named. "
        "Choose another OUTPUT, because this one was begun with these quotas."
    )


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, separator, number = text.rpartition("=")
    if not separator or not name:
        raise InputError(f"{flag} {text}: write it as NAME=NUMBER.")
    return name, number


def _amount(flag: str, text: str, number: str) -> Rule:
    try:
        rule = Rule(tokens=int(number)) if number.lstrip("-").isdigit() else Rule(ratio=float(number))
    except ValueError:
        raise InputError(f"{flag} {text}: {number!r} is not a number.") from None
    if not (rule.tokens or 0) >= 0 or not 0 <= (rule.ratio or 0) <= 1:
        raise InputError(
            f"{flag} {text}: a share must be between 0.0 and 1.0, and a number of tokens must not be negative."
        )
    return rule


def rule_of_reference(reference: str | None, shares: Mapping[str, Rule], rule: Rule) -> Rule:
    """The rule of a reference: its share, or `rule` if it has none."""
    return shares.get(reference, rule) if reference is not None else rule
