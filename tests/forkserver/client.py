"""Asks the fork server for a process. Nothing but the standard library is imported, so that it takes a few hundredths of a second.

`client.py MODULE ARGUMENTS` runs `python -m MODULE ARGUMENTS` in a fork, with this process's streams, and ends with its
exit code (or 255 where it was killed).
"""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence


def ask(arguments: Sequence[str], environment: Mapping[str, str], path: Sequence[str], *, wait: bool) -> int:
    """Have a file or a module run with these arguments, environment and module path, in this folder.

    Returns:
        Its exit code where we wait for its end, else 0 as soon as it runs.
    """
    request = {"arguments": arguments, "environment": dict(environment), "path": path, "folder": os.getcwd()}  # noqa: PTH109
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(os.environ["FORK_SERVER"])
        socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
        server.recv(1)  # it runs
        if not wait:
            return 0
        code = server.recv(9)
        return int(code) if code else 255


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1:], os.environ, [os.getcwd(), *sys.path[1:]], wait=True))  # noqa: PTH109
