"""Files that lie beside shards and are none: those of exports, of Megatron-LM datasets and of tables.

Their names look like those of shards. Read as shards, they would be documents that nobody wrote.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

import orjson

from rho_score.config import CorpusConfig
from rho_score.corpus import token_shards
from rho_score.corpus.delta_table import current_files
from rho_score.errors import InputError
from rho_score.files.folder import FileInfo, Folder
from rho_score.files.urls import without_credentials
from rho_score.safe_text import visible

Role = Literal["part", "other"]
PART: Role = "part"
"""The file belongs to a shard, and is read with it."""
OTHER: Role = "other"
"""The file is left out."""

_SUCCESS = "_SUCCESS.json"  # marks a finished store
_DELTA = "/_delta_log/"
_MOST_STATE = 64 << 20  # bytes of a state.json
_MASKS = {"_mask.bin": ".bin", "_mask.idx": ".idx", ".label_mask.npy": ".token_ids.npy"}  # beside tokens


def other_files(root: Folder, files: Mapping[str, FileInfo], corpus: CorpusConfig) -> dict[str, Role]:
    """The files that are no shards although their names may say so.

    files: all files below `root`.

    Raises:
        InputError: some files cannot be read as the layout that they belong to.
    """
    if corpus.token_files is not None:
        return dict.fromkeys(_of_exports(files), OTHER) | _of_token_files(root, files)
    _refuse_iceberg(files)
    found = [*_of_exports(files), *_of_saved_datasets(root, files), *_removed_from_delta(root, files)]
    return dict.fromkeys(found, OTHER)


def hint(files: Iterable[str], corpus: CorpusConfig) -> str:
    """Text to show behind the names of files that are left out: how they could be read."""
    told = corpus.on_token_files
    if told and corpus.token_files is None and any(token_shards.is_name(name) for name in files):
        return f" (files of token ids named {token_shards.NAMES} {told})"
    return ""


def _of_exports(files: Iterable[str]) -> list[str]:
    """The files of exports other than their documents."""
    folders = [name.removesuffix(_SUCCESS) for name in files if name.endswith(f"/{_SUCCESS}") or name == _SUCCESS]
    notes = tuple(f"{folder}{name}" for folder in folders for name in ("manifest.json", "parts/"))
    return [name for name in files if name.startswith(notes)]


def _of_token_files(root: Folder, files: Mapping[str, FileInfo]) -> dict[str, Role]:
    """The masks beside files of token ids, and the indices of Megatron-LM datasets.

    Raises:
        InputError: an index has no `.bin`.
    """
    found: dict[str, Role] = {}
    for name in files:
        mask = next((ending for ending in _MASKS if name.endswith(ending)), None)
        if mask is not None and name.removesuffix(mask) + _MASKS[mask] in files:
            found[name] = OTHER
    indices = {index for name in files if (index := token_shards.index_of(name)) != name}
    for name in files:
        if name.lower().endswith(".idx") and name not in found:
            if name not in indices and not root.exists(f"{name[:-4]}.bin"):
                raise InputError(
                    f"{visible(name)} is the index of a Megatron-LM dataset whose .bin is not there. Restore it, or take the index "
                    "out of the corpus."
                )
            found[name] = PART
    return found


def _of_saved_datasets(root: Folder, files: Mapping[str, FileInfo]) -> list[str]:
    """The files that `datasets` saves beside the data of a Dataset or a DatasetDict.

    `state.json` names the files of data in its folder; other Arrow files there are caches.

    Raises:
        InputError: a dataset's rows are chosen by a list of indices.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for name in files:
        folders[name.rpartition("/")[0]].append(name)
    found = [name for name in files if f"/{name}".endswith("/dataset_dict.json")]
    for folder, inside in folders.items():
        under = f"{folder}/" if folder else ""
        if (noted := f"{under}state.json") not in files or files[noted].size > _MOST_STATE:
            continue
        try:
            state = orjson.loads(root.read(noted))
            data = {f"{under}{one['filename']}" for one in state["_data_files"]}
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue  # of something else
        if any(value for key, value in state.items() if key.startswith("_indices")):
            raise InputError(
                f"{visible(folder) or root.url} is a dataset of which a list of indices chooses the rows. Save it again, with "
                "dataset.flatten_indices().save_to_disk(…)."
            )
        found += [noted, f"{under}dataset_info.json"]
        found += [name for name in inside if name.endswith(".arrow") and name not in data]
    return found


def _removed_from_delta(root: Folder, files: Mapping[str, FileInfo]) -> list[str]:
    """The Parquet files of Delta tables that their newest version does not hold.

    Raises:
        InputError: the package deltalake is missing or cannot read a table, or rows of a table are
            deleted in a way that its files do not show.
    """
    found: list[str] = []
    _refuse_inside_delta(root, files)
    for table in sorted({name[: name.index(_DELTA)] for name in (f"/{name}" for name in files) if _DELTA in name}):
        under = f"{table}/".lstrip("/")
        there = {name.removeprefix(under) for name in files if name.startswith(under) and name.endswith(".parquet")}
        there = {name for name in there if not any(part.startswith("_") for part in name.split("/"))}
        current = current_files(f"{root.url}{table}")
        if missing := current - there:
            raise InputError(
                f"{visible(under) or root.url} is a Delta table, but its file {visible(min(missing))} is not there. Restore it, or "
                "write the table again."
            )
        found += [f"{under}{name}" for name in there - current]
    return found


def _refuse_inside_delta(root: Folder, files: Iterable[str]) -> None:
    """Refuses a part of a Delta table: a single file, or a folder KEY=VALUE of it."""
    if any(f"/{name}".startswith(_DELTA) for name in files):
        return
    url, last = root.url, "="
    while "=" in last and url:
        if Folder(url).exists(_DELTA.strip("/")):
            raise InputError(
                f"{without_credentials(root.url)} is inside the Delta table {without_credentials(url)}, of which some files may hold "
                "removed rows. Give the folder of the table."
            )
        url, _, last = url.rpartition("/")


def _refuse_iceberg(files: Iterable[str]) -> None:
    for name in files:
        folder, _, last = name.rpartition("/")
        if last.endswith(".metadata.json") and folder.rpartition("/")[2] == "metadata":
            table = folder.rpartition("/")[0]
            raise InputError(
                f"{visible(table) or 'the input'} is an Iceberg table ({visible(name)}), of which some files may be deleted or "
                "replaced. Write its newest snapshot as Parquet first, for example with pyiceberg: "
                "StaticTable.from_metadata(FILE).scan().to_arrow()."
            )
