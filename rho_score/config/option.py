"""What a field of a configuration says about itself besides its type and its docstring."""

from dataclasses import dataclass

from tyro.conf import arg


@dataclass(frozen=True)
class Group:
    """The heading that options stand under in the help and in the reference pages."""

    title: str
    note: str = ""
    """A sentence or two that hold for all options of the group."""


def metavar(text: str) -> object:
    """How the value of an option is written, such as RATIO. Messages about wrong usage leave out
    defaults of None."""
    return arg(
        metavar=text, help_behavior_hint=lambda default: "" if default in ("", "None") else f"(default: {default})"
    )
