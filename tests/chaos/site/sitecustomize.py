"""Ends a process of the cluster at an exact moment of its work, and paces the work, so that there are moments.

On the path of every process of the chaos cluster (`PYTHONPATH`). It listens to the interpreter's audit events, so that nothing
of the program is replaced. `CHAOS_ROOT` is the folder in which everything happens; in `CHAOS_ROOT/armed` a file
`MOMENT,PROCESS,ACTION,FAULT,COUNT` is one passage of a process through a moment: whoever removes the file with count 0 acts.

    moment    open:NAME    the file or folder NAME is about to be opened (a folder: to sync it, after a file was renamed into it)
              rename:NAME  a file is about to be renamed to NAME, or into the folder NAME: written whole, not published yet
    process   worker, driver
    action    kill (this process), kill-node (its raylet, then itself), hog (on a node that has
              `CHAOS_HOG_BYTES`: allocate them and hold them for half a minute, if Ray does not end the process before that)
"""

import os
import signal
import sys
import time


def _install(root: str) -> None:
    armed, corpus = f"{root}/armed", f"{root}/corpus/"
    process = "worker" if any("default_worker.py" in argument for argument in sys.orig_argv) else "driver"
    pace_s = float(os.environ.get("CHAOS_PACE_S", "0"))

    hog_bytes = int(os.environ.get("CHAOS_HOG_BYTES", "0"))

    def act(action: str) -> None:
        if action == "hog":
            held = [b""]
            while len(held) << 24 < hog_bytes:
                held.append(b"x" * (1 << 24))
                time.sleep(0.01)
            time.sleep(30)
            return
        if action == "kill-node":
            os.kill(int(os.environ["RAY_RAYLET_PID"]), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def pass_through(moments: set[str]) -> None:
        waiting: dict[str, list[str]] = {}
        for name in os.listdir(armed):  # noqa: PTH208
            moment, who, action, fault, count = name.split(",")
            if moment in moments and who == process and (hog_bytes or action != "hog"):
                waiting.setdefault(f"{moment},{who},{action},{fault}", []).append(count)
        for name, counts in waiting.items():
            for count in sorted(counts, reverse=True):
                try:
                    os.unlink(f"{armed}/{name},{count}")  # noqa: PTH108
                except FileNotFoundError:  # another process was faster
                    continue
                if int(count) == 0:
                    act(name.split(",")[2])
                break

    def listen(event: str, arguments: tuple[object, ...]) -> None:
        if event not in ("open", "os.rename"):
            return
        path = arguments[0] if event == "open" else arguments[1]
        if isinstance(path, os.PathLike):
            path = os.fspath(path)
        if not isinstance(path, str) or not path.startswith(root) or path.startswith(armed):
            return
        if process == "worker" and (event == "os.rename" or path.startswith(corpus)):
            time.sleep(pace_s)
        verb = "open" if event == "open" else "rename"
        folder, _, file = path.rpartition("/")
        pass_through({f"{verb}:{file}", *([f"rename:{folder.rpartition('/')[2]}"] if verb == "rename" else [])})

    sys.addaudithook(listen)


if "CHAOS_ROOT" in os.environ:
    _install(os.environ["CHAOS_ROOT"])
