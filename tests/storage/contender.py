"""One of several processes that begin a store at once; apart from the tests, so that it starts without torch."""

import json
from multiprocessing.synchronize import Barrier

from rho_score.errors import InputError
from rho_score.files.folder import Folder
from rho_score.stores.claim import claim
from rho_score.stores.manifest import new_manifest


def contend(url: str, number: int, n_rounds: int, start: Barrier) -> None:
    """Claim one output after the other with settings of one's own; note for each whether it was got."""
    won = []
    for i in range(n_rounds):
        start.wait(60)
        try:
            claim(
                Folder(f"{url}/{i}"), new_manifest("selection", {"setting": number}), {"plan.parquet": b"%d" % number}
            )
            won.append(True)
        except InputError:
            won.append(False)
    Folder(url).publish(f"won/{number}", json.dumps(won).encode())
