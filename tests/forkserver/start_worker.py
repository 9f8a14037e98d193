"""Stands in for Ray's `setup_worker.py`: has the worker forked, or starts it in Ray's own way where it must.

A raylet runs this file with the arguments of the worker.
"""

import argparse
import json
import os
import sys

from client import ask  # beside this file, which is run as a script


def main() -> None:
    """Have the worker forked, or become it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language", default="PYTHON")
    given, arguments = parser.parse_known_args()
    context = json.loads(given.serialized_runtime_env_context or "{}")
    folder = os.path.dirname(arguments[0])  # noqa: PTH120
    is_plain = not context.get("command_prefix") and not context.get("override_worker_entrypoint")
    if given.language != "PYTHON" or not is_plain or context.get("py_executable", sys.executable) != sys.executable:
        os.execv(sys.executable, [sys.executable, f"{folder}/setup_worker.py", *sys.argv[1:]])
    ask(arguments, {**os.environ, **context.get("env_vars", {})}, [folder, *sys.path[1:]], wait=False)


if __name__ == "__main__":
    main()
