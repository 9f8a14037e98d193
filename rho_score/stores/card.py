"""The `README.md` of a store: a dataset card, by which `datasets.load_dataset(FOLDER)` reads it."""

from rho_score.files.json import JsonObject

CARD = "README.md"

_CONFIG = """---
configs:
- config_name: {name}
  data_files: {files}
---
"""
_ABOUT = {
    "score set": "The loss of every token of a corpus under one model, made by `rho-score score`. A row is a document: "
    "`input_ids`, and the `loss` of each token in nats, null where a token has none.",
    "frequencies": "The loss of every token of a corpus by its frequency alone, made by `rho-score prior`. A row is a "
    "document: `input_ids`, and the `loss` of each token in nats, null where a token has none.",
    "kl": "How far two models are apart at every token of a corpus, made by `rho-score kl`. A row is a document: "
    "`input_ids`, and in `loss` a lower bound of the divergence at each token in nats, null where there is none.",
    "losses": "A loss for every token of a corpus, made by `rho-score import`. A row is a document: `input_ids`, and the "
    "`loss` of each token in nats, null where a token has none.",
    "values": "A value for every token of a corpus, made by `rho-score import`. A row is a document: `input_ids`, and in "
    "`loss` the value of each token, null where a token has none. The values are not losses in nats.",
    "selection": "The tokens to train on, made by `rho-score select`. A row is a document: `input_ids`, the scores of its "
    "tokens in nats, and the `mask`, true for each token to train on.",
    "deduplicated corpus": "A corpus without its exact and near duplicates, made by `rho-score dedup`. `data/` has the kept "
    "documents with all their own columns, and `dropped/` lists the others.",
}


def card(manifest: JsonObject) -> bytes | None:
    """The card of a store with this manifest; None for a training run, which holds no rows."""
    kind = manifest["kind"]
    if kind in ("training run", "tuning"):
        return None
    form = manifest["parts"].get("format") if kind == "export" else "parquet"
    files = {"jsonl": "data/*.jsonl*", "bin": None, "olmo": None, "megatron": None}.get(form, "data/*.parquet")
    if kind == "deduplicated corpus":
        files = "data/**" if len(manifest["formats"]) == 1 else None
    if kind == "export":
        what = f"In its files, {manifest['mask']}. " if "mask" in manifest else ""
        about = f"Made by `rho-score export --format {form}`. {what}Note: {manifest['note']}"
    else:
        about = _ABOUT[_source(manifest) or kind]
    # `datasets` keeps what it read under the names of the folder and of the configuration alone: with one name for all,
    # another store in a folder of the same name would be taken for this one. Digits alone would be a number in YAML.
    head = _CONFIG.format(name=f"rho-{manifest['fingerprint'][:12]}", files=files) if files else ""
    title = "An export" if kind == "export" else f"A {kind}"
    return f"{head}# {title} of rho-score\n\n{about}\n\n`manifest.json` says what it was made from.\n".encode()


def _source(manifest: JsonObject) -> str | None:
    """What the values of a score set come from, if not from a model; None for other stores."""
    if manifest["kind"] != "score set" or "derived" not in manifest["parts"]:
        return None
    source = str(manifest["parts"]["derived"]["from"])
    if source != "values":
        return source
    return "values" if manifest["parts"].get("unit") else "losses"
