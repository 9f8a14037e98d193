"""Checks `RAY_ADDRESS` and Ray's temporary folder before a run begins its output."""

import os
import shutil
import socket
from datetime import datetime
from pathlib import Path

from rho_score.errors import InputError, RhoScoreError

CONNECT_S = 10.0  # a head answers within milliseconds
NEEDED_BYTES = 16 << 20  # free space in Ray's temporary folder, for logs and sockets
OTHERWISE = "Set RAY_ADDRESS to HOST:PORT of the cluster's head (port 6379 by default) or to auto, or unset it to work on this machine alone."


def check_address(address: str) -> None:
    """Raises an error unless `RAY_ADDRESS` is the address of a cluster that a driver can join.

    Raises:
        InputError: it has another form, is `auto` on a machine without a cluster, or is the address
            of another kind of server.
        RhoScoreError: no server answers there.
    """
    scheme, separator, place = address.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        raise InputError(
            f"RAY_ADDRESS={address} is the address of a job server, which a driver cannot join. Submit the command to it: "
            f"`ray job submit --address {address} --working-dir . -- python ray_jobs/score.py …`. {OTHERWISE}"
        )
    if separator and scheme.lower() == "ray":
        raise InputError(
            f"RAY_ADDRESS={address} is the address of a Ray Client server, through which these jobs do not run. Run the command "
            f"on a node of the cluster, or as a job: `ray job submit --address http://{place.rpartition(':')[0]}:8265 "
            f"--working-dir . -- python ray_jobs/score.py …`. {OTHERWISE}"
        )
    place = _found_here() if address == "auto" else address
    _check_answers(address, *_host_and_port(place))


def _found_here() -> str:
    """Returns HOST:PORT of the cluster on this machine."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return str(canonicalize_bootstrap_address("auto"))
    except ConnectionError as error:
        raise InputError(f"RAY_ADDRESS is auto, but no Ray cluster runs on this machine. {OTHERWISE}") from error


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"RAY_ADDRESS={address} is not the address of a Ray cluster. {OTHERWISE}")
    return host, int(port)


def _check_answers(address: str, host: str, port: int) -> None:
    try:
        with socket.create_connection((host, port), timeout=CONNECT_S) as connection:
            answers = os.environ.get("RAY_USE_TLS", "0") == "1" or _speaks_http2(connection)
    except OSError as error:
        raise RhoScoreError(
            f"RAY_ADDRESS={address}: no cluster answers at {host} port {port} ({error}). Start its head there, or correct the "
            f"address. {OTHERWISE}"
        ) from error
    if not answers:
        raise InputError(
            f"RAY_ADDRESS={address}: the server at {host} port {port} is not the head of a Ray cluster. (The port of its "
            f"dashboard, 8265 by default, is a different one.) {OTHERWISE}"
        )


def _speaks_http2(connection: socket.socket) -> bool:
    """True if the server speaks HTTP/2, which Ray's head does; its first frame is a settings frame.

    Ray itself would keep asking another server for more than a minute.
    """
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
    frame = b""
    try:
        while len(frame) < 9 and (more := connection.recv(9 - len(frame))):
            frame += more
    except OSError:
        return False
    return len(frame) == 9 and frame[3] == 4


def refusal(address: str, error: BaseException) -> RhoScoreError:
    """Returns the error for a cluster that answers at `RAY_ADDRESS` but cannot be joined."""
    said = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return RhoScoreError(
        f"RAY_ADDRESS={address}: the cluster cannot be joined: {said.strip()} This machine must be one of its nodes and have "
        "the same versions of Ray and Python and the same token as the others."
    )


def check_temp_folder() -> None:
    """Raises an error if Ray's temporary folder keeps a cluster from starting on this machine.

    Raises:
        InputError: the folder's name is too long for sockets, or the folder cannot be made or
            written to, or it is full.
    """
    from ray._common.utils import get_default_ray_temp_dir
    from ray._private.utils import validate_socket_filepath

    folder = Path(get_default_ray_temp_dir())
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "TMPDIR")
    remedy = "Set RAY_TMPDIR to a folder with a short name, room and write permission: RAY_TMPDIR=/tmp"
    session = f"session_{datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}"
    longest = folder / session / "sockets" / "plasma_store"
    try:
        validate_socket_filepath(str(longest))
    except OSError as error:
        raise InputError(
            f"Ray's temporary folder {folder} ({variable}) has too long a name: sockets in it would have names of "
            f"{len(os.fsencode(longest))} bytes, more than the system allows. {remedy}."
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise InputError(
            f"Ray's temporary folder {folder} ({variable}) cannot be made: {error.strerror or error}. {remedy}."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"Ray's temporary folder {folder} ({variable}) cannot be written to. {remedy}.")
    if free < NEEDED_BYTES:
        raise InputError(f"Ray's temporary folder {folder} ({variable}) is full: {free:,} bytes are free. {remedy}.")
