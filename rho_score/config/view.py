"""The options of `rho-score view`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, UseAppendAction

from rho_score.config.option import Group, metavar

_PAGE = Group("Page")
_MOVED = Group("Score sets", "A selection notes where its score sets are. Name those that have moved.")


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Explore a score set or a selection in the browser.

    A page is served on this machine alone, until Ctrl-C ends the command. It shows what any
    threshold would keep of each group, lists, sorts and filters the documents, and shows each of
    them token by token. The store is read in place and may have any size. `report` writes a page
    that can be sent; this one explores.
    """

    store: Annotated[Positional[str], metavar("STORE")]
    """The score set or selection, as a path or as any fsspec URL."""
    beside: Annotated[UseAppendAction[tuple[str, ...]], _PAGE, metavar("STORE")] = ()
    """Another score set or selection of the same documents, which are then shown side by side.
    Repeat the option for several."""
    port: Annotated[int, _PAGE, metavar("N")] = 0
    """The port that the page is served at. With 0, it is a free one."""
    browser: Annotated[bool, _PAGE] = True
    """Open the page in a browser. The URL is printed in any case."""
    cache: Annotated[str | None, _PAGE, metavar("DIR")] = None
    """The folder of the index of documents, which is made once for each store. By default it is in
    ~/.cache/rho-score/view."""
    ref: Annotated[str | None, _MOVED, metavar("SCORES")] = None
    """The score set of the reference model."""
    base: Annotated[str | None, _MOVED, metavar("SCORES")] = None
    """The score set of the base model."""

    def __post_init__(self) -> None:
        if isinstance(self.beside, str):
            object.__setattr__(self, "beside", (self.beside,))
