"""Runs the tasks of a stage that have no result on storage yet: a stage resumes where it stopped."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import orjson

from rho_score.cluster.progress import Progress
from rho_score.cluster.tasks import in_tasks, result
from rho_score.files.folder import Folder
from rho_score.files.json import JsonObject


class Named(Protocol):
    """A task with the name of its result, and the number of units that the progress counts for it."""

    @property
    def name(self) -> str: ...
    @property
    def n_units(self) -> int: ...


T = TypeVar("T", bound=Named)


def run_stage(
    what: str,
    output: Folder,
    under: str,
    tasks: Sequence[T],
    work: Callable[[T], JsonObject],
    *,
    workers: int | None,
    tokens_of: Callable[[JsonObject], int] = lambda content: 0,
) -> dict[str, JsonObject]:
    """Runs `work(task)` for each task whose result is not there; returns all results by name, in order.

    Last of all, `work` writes the object that it returns to `<under>/<name>.json`. what: the name of
    the stage. tokens_of: the tokens of a result, for the progress.
    """
    there = {name.removesuffix(".json") for name in output.listing(under) if name.endswith(".json")}
    todo = [task for task in tasks if task.name not in there]
    with ThreadPoolExecutor(16) as pool:
        read = pool.map(lambda name: orjson.loads(output.read(f"{under}/{name}.json")), sorted(there))
        found = dict(zip(sorted(there), read, strict=True))
    with Progress(what, n_units=sum(task.n_units for task in todo)) as progress:
        for index, reference in in_tasks(work, todo, workers=workers):
            content: JsonObject = result(reference)
            found[todo[index].name] = content
            progress.add(units=todo[index].n_units, tokens=tokens_of(content))
    return {task.name: found[task.name] for task in tasks}


def remove_all(output: Folder, under: str) -> None:
    """Removes the files of a folder one by one: not every object store can delete many at a time."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: output.remove(f"{under}/{name}"), output.names(under)))
