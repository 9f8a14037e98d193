"""What tasks are sent of objects that open stores."""

from dataclasses import fields
from typing import Any


class Reopened:
    """A dataclass that is sent to tasks without what it opened: its cached properties are opened there."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
