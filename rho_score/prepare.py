"""Before a selection runs: its rule is checked, its score sets are opened and compared, its manifest is made."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rho_score.claims import claim
from rho_score.config import SelectConfig
from rho_score.errors import InputError
from rho_score.histogram import Bits
from rho_score.join import Join
from rho_score.masks import Selector
from rho_score.rules import check_budget, check_share, check_threshold, parse_quotas, parse_shares
from rho_score.schema import SCHEMA_VERSION
from rho_score.storage import Folder, absolute
from rho_score.store import PLAN, ScoreSet, difference, new_manifest, relative_url
from rho_score.unfinished import published_of_all
from rho_score.vocabulary import Vocabulary

COLUMNS = ["text_column", "id_column", "group_column"]
COMPARABLE = ["tokenizer_sha256", "context", "overlap", "prefix_id", *COLUMNS]
NO_RULE = ("output", "ref", "base", "allow_unfinished", "dry_run", "workers")  # what does not determine the masks


@dataclass(frozen=True)
class Prepared:
    """What a selection is made of."""

    selector: Selector
    manifest: dict[str, Any]
    main: ScoreSet
    planned: int
    """Units of the corpus; `main` has fewer where a score set is not finished."""
    others: tuple[ScoreSet, ...]
    """Sets that are cut into other units than the main one."""


def prepare(config: SelectConfig) -> Prepared:
    """Open and compare the score sets.

    Raises:
        InputError: wrong usage, or score sets that do not belong together; what differs is printed.
    """
    refs = parse_refs(config.ref)
    check_rule(config, list(refs))
    urls = ([config.base] if config.base else []) + list(refs.values())
    sets = {url: ScoreSet.open(url, finished=not config.allow_unfinished) for url in urls}
    main = next(iter(sets.values()))
    for url, scores in sets.items():
        names = ("base" if config.base else next(iter(refs)), _label(url, refs))
        comparable(main, scores, names, by_bytes=config.align == "bytes")
    if (config.per_group or config.quota) and not main.grouped:
        raise InputError(
            f"--per-group and --quota need groups, and {main.folder.url} has none: score with --group-column."
        )
    bits: Bits = 32 if all(scores.loss_bits == 32 for scores in sets.values()) else 16
    others = cut_otherwise(main, sets.values())
    if others and not all(scores.finished for scores in sets.values()):
        raise InputError(
            f"{others[0].folder.url} is cut into other units than {main.folder.url}; such sets are joined once both are finished."
        )
    some, unfinished = main, None
    if config.allow_unfinished:
        some, unfinished = published_of_all(main, sets.values(), Folder(config.output))
    join = Join(
        refs=refs, base=config.base, combine=config.combine, bits=bits, vocabularies=_vocabularies(config, main, sets)
    )
    high = config.base is not None if config.keep == "auto" else config.keep == "high"
    places = refs | ({"base": config.base} if config.base else {})
    parts = {
        "schema_version": SCHEMA_VERSION,
        "scores": {name: sets[url].manifest["fingerprint"] for name, url in places.items()},
        **({} if unfinished else {"held": {name: sets[url].held for name, url in places.items()}}),
        "main": _label(main.folder.url, refs),
        "score": "excess" if config.base else "loss",
        **{name: value for name, value in asdict(config).items() if name not in NO_RULE},
        "keep": "high" if high else "low",
        "bits": bits,
        "group_column": main.manifest["parts"]["group_column"],
        "tokenizer_sha256": main.tokenizer_sha256,
        **({"unfinished": unfinished} if unfinished else {}),
    }
    where = {name: relative_url(url, config.output) for name, url in places.items()}
    manifest = new_manifest("selection", parts, scores=where)
    selector = Selector(config=config, join=join, fingerprint=manifest["fingerprint"], grouped=main.grouped, high=high)
    return Prepared(selector, manifest, some, main.n_units, others)


def parse_refs(given: tuple[str, ...]) -> dict[str, str]:
    """URLs of the references by name; one without a name is "ref". Raises InputError."""
    refs: dict[str, str] = {}
    for text in given:
        named = re.match(r"([A-Za-z0-9_.-]+)=(.+)", text)
        name, url = (named[1], named[2]) if named else ("ref", text)
        if name in refs:
            raise InputError(
                f"two references are called {name!r}: name each, --ref math=scores/math --ref code=scores/code."
            )
        refs[name] = absolute(url)
    if "base" in refs:
        raise InputError("a reference cannot be called base: that is the name of the base model's scores.")
    if not refs:
        raise InputError("--ref is missing: the score set of a reference model.")
    return refs


def _label(url: str, refs: Mapping[str, str]) -> str:
    return next((name for name, place in refs.items() if place == url), "base")


def claim_selection(output: str, manifest: Mapping[str, Any], main: ScoreSet) -> None:
    """Begin the selection, with the main score set's plan and tokenizer, or go on with the one that is there."""
    tokenizer = {
        f"tokenizer/{name}": main.folder.read(f"tokenizer/{name}") for name in main.folder.listing("tokenizer")
    }
    claim(Folder(output), manifest, {PLAN: main.plan_content, **tokenizer})


def cut_otherwise(main: ScoreSet, sets: Iterable[ScoreSet]) -> tuple[ScoreSet, ...]:
    """Those of `sets` that are cut into other units than `main`."""
    units = main.plan_names()["unit"]
    return tuple(s for s in sets if s is not main and not s.plan_names()["unit"].equals(units))


def comparable(main: ScoreSet, other: ScoreSet, names: tuple[str, str], *, by_bytes: bool = False) -> None:
    """Raises InputError where the losses of two sets cannot be compared token by token, or by bytes, and says why."""
    left, right = main.manifest["parts"], other.manifest["parts"]
    same = main.tokenizer_sha256 == other.tokenizer_sha256
    keys = COLUMNS if by_bytes and not same else COMPARABLE
    if differs := difference(left, right, *names, keys):
        hint = "" if same else " Losses of models with different tokenizers are compared with --align bytes."
        raise InputError(
            f"{main.folder.url} and {other.folder.url} cannot be compared token by token:\n{differs}\n"
            f"Score both models over the same files with the same tokenizer, context, overlap and columns.{hint}"
        )
    shards = set.symmetric_difference(*(set(s.plan_names()["shard"].unique().to_pylist()) for s in (main, other)))
    if shards:
        raise InputError(
            f"{main.folder.url} and {other.folder.url} are of different files: {len(shards)} shards are in one of them only, "
            f"such as {min(shards)}. Score both models over the same corpus."
        )


def _vocabularies(config: SelectConfig, main: ScoreSet, sets: Mapping[str, ScoreSet]) -> dict[str, Vocabulary]:
    """The bytes of each vocabulary's tokens, by URL, where losses are compared over bytes or bytes are counted."""
    different = any(scores.tokenizer_sha256 != main.tokenizer_sha256 for scores in sets.values())
    if not different and config.document_score != "per-byte" and config.align != "bytes":
        return {}
    from rho_score.inspect import load_store_tokenizer  # transformers takes seconds to import

    return {
        url: Vocabulary.of(load_store_tokenizer(scores))
        for url, scores in sets.items()
        if scores is main or scores.tokenizer_sha256 != main.tokenizer_sha256
    }


def check_rule(config: SelectConfig, refs: list[str]) -> None:
    """Raises InputError where options are wrong or do not go together."""
    _check_amount(config)
    _check_numbers(config)
    union = config.combine == "union" and len(refs) > 1
    parse_shares(config.share, refs)
    parse_quotas(config.quota)
    together = {
        "--share and --expert-masks need --combine union and several --ref": bool(config.share or config.expert_masks)
        and not union,
        "--share stands beside --ratio, for the references that it does not name; not beside --quota, --tokens or --threshold":
        bool(config.share) and config.ratio is None,
        "--per-group applies a ratio or a threshold within each group; a budget of --tokens is for the whole. "
        "Give each group its own with --quota": config.per_group and config.tokens is not None,
        "--scope document and --scope batch keep a --ratio of tokens (no other rule, no groups, no --sample, no documents)":
        config.scope != "corpus"
        and (config.ratio is None or config.per_group or bool(config.quota) or config.sample is not None
             or config.level == "document"),
        "--batch-tokens belongs to --scope batch, and --scope batch needs it": (config.scope == "batch")
        != (config.batch_tokens is not None),
        "--document-score belongs to --level document": config.document_score != "mean" and config.level != "document",
        "--token-ratio belongs to --document-score kept-share, which needs it": (config.document_score == "kept-share")
        != (config.token_ratio is not None),
        "--sample draws a --ratio or a number of --tokens; it has no --threshold and no --drop-top": config.sample
        is not None
        and (config.threshold is not None or config.drop_top > 0),
        "--min-run is about tokens, not about documents": config.min_run > 1 and config.level == "document",
    }  # fmt: skip
    for words, wrong in together.items():
        if wrong:
            raise InputError(f"{words}.")


def _check_amount(config: SelectConfig) -> None:
    rules = {"--ratio": config.ratio, "--tokens": config.tokens, "--threshold": config.threshold}
    given = [flag for flag, value in rules.items() if value is not None]
    if config.quota:
        if given:
            raise InputError(f"--quota says how much each group keeps; leave out {' and '.join(given)}.")
    elif len(given) != 1:
        raise InputError(f"give exactly one of {', '.join(rules)}; got {' and '.join(given) or 'none'}.")


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
        raise InputError(f"--temperature is between 0.000001 and 1000000, got {config.temperature}.")
    for flag, number in (
        ("--min-run", config.min_run), ("--batch-tokens", config.batch_tokens), ("--workers", config.workers),
    ):  # fmt: skip
        if number is not None and number < 1:
            raise InputError(f"{flag} is at least 1, got {number}.")
