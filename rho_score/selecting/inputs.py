"""Prepares a selection: checks the rule, opens and compares the score sets, makes the manifest."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rho_score.config import SelectConfig
from rho_score.config.corpus import WHOLE
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.urls import absolute
from rho_score.models.vocabulary import Vocabulary
from rho_score.ranking.keys import Bits
from rho_score.selecting.join import Join
from rho_score.selecting.options import check_rule, parse_refs
from rho_score.selecting.ranked_items import Ranker
from rho_score.selecting.unfinished import published_of_all
from rho_score.stores.claim import claim
from rho_score.stores.comparable import comparable, cut_otherwise
from rho_score.stores.layout import PLAN
from rho_score.stores.lineage import covers
from rho_score.stores.manifest import new_manifest, relative_url
from rho_score.stores.schema import SCHEMA_VERSION
from rho_score.stores.score_set import ScoreSet
from rho_score.stores.selection import Selection

# these options do not determine the masks, or are noted apart
NO_RULE = ("output", "ref", "base", "within", "allow_unfinished", "dry_run", "workers", "weights")


@dataclass(frozen=True)
class Prepared:
    """What a selection needs to run."""

    ranker: Ranker
    manifest: JsonObject
    main: ScoreSet
    planned: int
    """Units of the corpus. `main` has fewer if a score set is not finished."""
    others: tuple[ScoreSet, ...]
    """The score sets that are cut into other units than `main`."""


def prepare(config: SelectConfig) -> Prepared:
    """Checks the options, and opens and compares the score sets.

    Raises:
        InputError: an option is wrong, or the score sets do not belong together. The message says
            what differs.
    """
    refs = parse_refs(config.ref)
    check_rule(config, list(refs))
    urls = ([config.base] if config.base else []) + list(refs.values())
    sets = {url: ScoreSet.open(url, finished=not config.allow_unfinished) for url in urls}
    main = next(iter(sets.values()))
    for url, scores in sets.items():
        names = ("base" if config.base else next(iter(refs)), _label(url, refs))
        comparable(main, scores, names, by_bytes=config.align == "bytes", gain=True)
    if (config.per_group or config.quota) and not main.grouped:
        raise InputError(
            f"--per-group and --quota need groups, but {main.folder.url} has none. Score with --group-column."
        )
    bits: Bits = 32 if all(scores.loss_bits == 32 for scores in sets.values()) else 16
    others = cut_otherwise(main, sets.values())
    if others and not all(scores.finished for scores in sets.values()):
        raise InputError(
            f"{others[0].folder.url} is cut into other units than {main.folder.url}. Such sets can be joined only when "
            "both are finished."
        )
    some, unfinished = main, None
    if config.allow_unfinished:
        some, unfinished = published_of_all(main, sets.values(), Folder(config.output))
    join = Join(
        refs=refs,
        base=config.base,
        combine=config.combine,
        bits=bits,
        vocabularies=_vocabularies(config, main, sets),
        within=_within(config, main),
    )
    if not main.in_nats:
        _check_other_unit(config, main)
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
        **({} if main.in_nats else {"unit": "other"}),
        **({"unfinished": unfinished} if unfinished else {}),
        **({"weights": config.weights} if config.weights else {}),
        **({"within": Selection.open(join.within).manifest["fingerprint"]} if join.within else {}),
    }
    where = {name: relative_url(url, config.output) for name, url in places.items()}
    inside = {"within": relative_url(join.within, config.output)} if join.within else {}
    manifest = new_manifest("selection", parts, scores=where, **inside)
    context = main.columns.kind not in WHOLE
    ranker = Ranker(config=config, join=join, grouped=main.grouped, context=context, high=high)
    return Prepared(ranker, manifest, some, main.n_units, others)


def _check_other_unit(config: SelectConfig, main: ScoreSet) -> None:
    """Raises InputError for options that mean something only for losses in nats."""
    what = f"{main.folder.url} holds imported values of another unit than nats"
    if config.keep == "auto" and config.base is None:
        raise InputError(f"{what}. Say which end is kept, with --keep high or --keep low.")
    if config.align == "bytes" or config.document_score == "per-byte":
        raise InputError(
            f"{what}. Leave out --align bytes and --document-score per-byte, which spread losses over bytes."
        )


def _within(config: SelectConfig, main: ScoreSet) -> str | None:
    """The URL of --within; raises InputError unless it covers the main set."""
    if config.within is None:
        return None
    url = absolute(config.within)
    if not of_its_units(main, Selection.open(url)):
        raise InputError(
            f"--within {config.within} was not made from {main.folder.url} or a score set of the same corpus, tokenizer and "
            "units. Make it from the same score sets."
        )
    return url


def of_its_units(main: ScoreSet, selection: Selection) -> bool:
    """True if a selection has the tokens of the main set, cut into the same units."""
    return covers(main, selection) and selection.plan_names() == main.plan_names()


def _label(url: str, refs: Mapping[str, str]) -> str:
    return next((name for name, place in refs.items() if place == url), "base")


def claim_selection(output: str, manifest: JsonObject, main: ScoreSet) -> None:
    """Begins the selection, with the main set's plan and tokenizer, or goes on with it."""
    tokenizer = {
        f"tokenizer/{name}": main.folder.read(f"tokenizer/{name}") for name in main.folder.listing("tokenizer")
    }
    claim(Folder(output), manifest, {PLAN: main.plan_content, **tokenizer})


def _vocabularies(config: SelectConfig, main: ScoreSet, sets: Mapping[str, ScoreSet]) -> dict[str, Vocabulary]:
    """The vocabularies by URL; empty unless losses are compared over bytes or bytes are counted."""
    different = any(scores.tokenizer_sha256 != main.tokenizer_sha256 for scores in sets.values())
    if not different and config.document_score != "per-byte" and config.align != "bytes":
        return {}
    from rho_score.stores.tokenizer import load_store_tokenizer  # transformers is slow to import

    return {
        url: Vocabulary.of(load_store_tokenizer(scores))
        for url, scores in sets.items()
        if scores is main or scores.tokenizer_sha256 != main.tokenizer_sha256
    }
