"""The faults there are, and seeded schedules of them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Command = Literal["score", "select", "export"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way to fail. It comes from outside (`target`), or at an exact moment (`moment`, see site/sitecustomize.py)."""

    name: str
    command: Command
    target: Literal["", "actor", "task", "driver", "node", "leave", "join", "head"] = ""
    """From outside: SIGKILL to a process of this sort, or a node that leaves, joins, or is the head."""
    moment: str = ""
    process: Literal["worker", "driver"] = "worker"
    action: Literal["kill", "kill-node", "hog"] = "kill"
    passages: int = 1
    """How many processes pass through the moment in an undisturbed run, at least; the fault takes one by chance."""


KINDS: tuple[Kind, ...] = (
    Kind(name="score: scoring actor", command="score", target="actor"),
    Kind(name="score: actor while loading the model", command="score", moment="open:model.safetensors"),
    Kind(name="score: task worker (read, tokenize, publish)", command="score", target="task"),
    Kind(name="score: while reading", command="score", moment="open:a.jsonl", passages=12),
    Kind(name="score: before a quarantine file", command="score", moment="rename:quarantine", passages=4),
    Kind(name="score: between quarantine and data", command="score", moment="open:quarantine", passages=4),
    Kind(name="score: between temporary file and data", command="score", moment="rename:data", passages=20),
    Kind(name="score: data published, not reported", command="score", moment="open:data", passages=20),
    Kind(name="score: out of memory", command="score", moment="open:data", action="hog", passages=2),
    Kind(name="score: node", command="score", target="node"),
    Kind(name="score: node while a model loads", command="score", moment="open:model.safetensors", action="kill-node"),
    Kind(name="score: node in publishing", command="score", moment="rename:data", action="kill-node", passages=20),
    Kind(name="score: node joins", command="score", target="join"),
    Kind(name="score: node leaves", command="score", target="leave"),
    Kind(name="score: driver", command="score", target="driver"),
    Kind(name="score: driver before the manifest", command="score", moment="rename:manifest.json", process="driver"),
    Kind(name="score: driver before _SUCCESS.json", command="score", moment="rename:_SUCCESS.json", process="driver"),
    Kind(name="score: the head, and so the cluster", command="score", target="head"),
    Kind(name="select: task worker", command="select", target="task"),
    Kind(name="select: counting, before a file", command="select", moment="rename:counts", passages=20),
    Kind(name="select: counting, after a file", command="select", moment="open:counts", passages=20),
    Kind(name="select: masks, before a file", command="select", moment="rename:data", passages=20),
    Kind(name="select: masks, after a file", command="select", moment="open:data", passages=20),
    Kind(name="select: node", command="select", target="node"),
    Kind(name="select: node in writing", command="select", moment="rename:data", action="kill-node", passages=20),
    Kind(name="select: driver", command="select", target="driver"),
    Kind(name="select: driver before the histogram", command="select", moment="rename:histogram.parquet", process="driver"),
    Kind(name="select: driver before summary.json", command="select", moment="rename:summary.json", process="driver"),
    Kind(name="export: data, before a file", command="export", moment="rename:data", passages=8),
    Kind(name="export: between data and counts", command="export", moment="rename:parts", passages=8),
    Kind(name="export: node in writing", command="export", moment="rename:data", action="kill-node", passages=8),
    Kind(name="export: driver", command="export", target="driver"),
    Kind(name="export: driver before _SUCCESS.json", command="export", moment="rename:_SUCCESS.json", process="driver"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of a run. `number` makes it unique in its round."""

    kind: Kind
    number: int
    passage: int = 0
    """At a moment: so many processes pass through before it strikes."""
    after_files: int = 0
    """From outside: once so many files are published."""
    delay_s: float = 0.0

    @property
    def ends_the_driver(self) -> bool:
        """Whether the command must be run again."""
        return self.kind.target in ("driver", "head") or self.kind.process == "driver"

    def __str__(self) -> str:
        when = f"passage {self.passage}" if self.kind.moment else f"{self.after_files} files + {self.delay_s:.2f} s"
        return f"{self.kind.name} ({when})"


def schedule(kinds: Sequence[Kind], *, seed: int, n_files: int) -> list[Fault]:
    """When each of these faults strikes a run that publishes `n_files` files in its data folder."""
    chance = random.Random(seed)
    return [
        Fault(
            kind=kind,
            number=number,
            passage=chance.randrange(kind.passages),
            after_files=chance.randrange(n_files // 3),
            delay_s=chance.uniform(0, 0.3),
        )
        for number, kind in enumerate(kinds)
    ]


def kind_named(name: str) -> Kind:
    """The kind of this name."""
    return next(kind for kind in KINDS if kind.name == name)


AT_ONCE: dict[Command, int] = {"score": 6, "select": 8, "export": 5}


def rounds(seed: int, *, n_faults: int) -> list[tuple[Command, list[Kind]]]:
    """Runs with several faults each, every kind in turn, `n_faults` in all."""
    chance = random.Random(seed)
    waiting: dict[Command, list[Kind]] = {"score": [], "select": [], "export": []}
    made: list[tuple[Command, list[Kind]]] = []
    planned = 0
    while planned < n_faults:
        for kind in chance.sample(KINDS, len(KINDS)):
            waiting[kind.command].append(kind)
            if len(waiting[kind.command]) == AT_ONCE[kind.command]:
                made.append((kind.command, waiting[kind.command]))
                waiting[kind.command] = []
                planned += AT_ONCE[kind.command]
    return made
