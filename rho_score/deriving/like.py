"""The manifest of a score set that has the documents and tokens of another one."""

from collections.abc import Mapping
from typing import Any

from rho_score.config import Precision
from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject
from rho_score.files.paths import check_writable
from rho_score.stores.claim import claim
from rho_score.stores.comparable import COMPARABLE
from rho_score.stores.layout import PLAN
from rho_score.stores.manifest import new_manifest, relative_url, resolve_relative
from rho_score.stores.schema import SCHEMA_VERSION
from rho_score.stores.score_set import ScoreSet

SAME = (*COMPARABLE, "unit_bytes", "plan_sha256")
"""The parts that say which documents and tokens a score set has, and where they were cut."""


def claim_like(
    like: ScoreSet,
    output: str,
    derived: JsonObject,
    *,
    precision: Precision | None,
    in_nats: bool = True,
    places: Mapping[str, str] | None = None,
) -> JsonObject:
    """Begins or resumes a score set with the documents of `like`; returns its manifest.

    derived: what else determines its numbers. precision: None for that of `like`. places: URLs to
    note besides that of `like`, by the field that notes them.

    Raises:
        InputError: the output holds something else, or was begun with other settings.
    """
    there = like.manifest["parts"]
    parts: JsonObject = {
        "schema_version": SCHEMA_VERSION,
        **{name: there[name] for name in SAME if name in there},
        "precision": precision or ("float32" if like.loss_bits == 32 else "float16"),
        "derived": {**derived, "like": like.manifest["fingerprint"], "held": like.held},
        **({} if in_nats else {"unit": "other"}),
    }
    corpus = dict(like.manifest.get("input", {}))
    if corpus.get("root") is not None:
        corpus["root"] = relative_url(resolve_relative(like.folder, corpus["root"]), output)
    noted: dict[str, Any] = {
        name: relative_url(url, output) for name, url in {"like": like.folder.url, **(places or {})}.items()
    }
    manifest = new_manifest("score set", parts, input=corpus, **noted)
    tokenizer = {
        f"tokenizer/{name}": like.folder.read(f"tokenizer/{name}") for name in like.folder.listing("tokenizer")
    }
    claim(Folder(output), manifest, {PLAN: like.plan_content, **tokenizer})
    return manifest


def check_output(output: str, workers: int | None) -> None:
    """Raises InputError if a set cannot be written there, or with this number of workers."""
    check_writable("OUTPUT", output)
    if workers is not None and workers < 1:
        raise InputError(f"--workers must be at least 1, got {workers}.")
