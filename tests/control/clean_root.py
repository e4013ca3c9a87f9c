"""A root of its own for one command: nothing of this host in it but programs, read-only, under /usr.

A new mount namespace and chroot: what the command writes lies below the folder and can be looked at from outside. The
network is that of this host, so that it reaches a server on 127.0.0.1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

FOLDERS = ("etc", "opt", "var/lib", "var/log", "tmp", "root", "proc", "dev", "usr", "run", "home")
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
FILES = ("passwd", "group", "hosts", "nsswitch.conf", "ld.so.cache", "machine-id")
PATH = "/usr/local/bin:/usr/bin:/usr/sbin"
SCRIPT = """
set -e
mount --rbind /usr "$1/usr"
mount -o remount,bind,ro "$1/usr"
mount -t tmpfs none "$1/usr/local" 2>/dev/null || true
mkdir -p "$1/kept/bin" "$1/usr/local/bin"
mount --bind "$1/kept" "$1/usr/local"
mount -t proc none "$1/proc"
mount --rbind /dev "$1/dev"
exec chroot "$1" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH="$2" /usr/bin/bash -c "$3"
"""


def missing() -> str:
    """Why it cannot be had here; empty if it can."""
    if os.geteuid() != 0:
        return "needs root"
    if not Path("/usr/bin/python3").exists():
        return "needs a Python in /usr/bin: apt install python3 python3-venv"
    ready = subprocess.run(["/usr/bin/python3", "-c", "import ensurepip, venv"], capture_output=True, check=False)
    if ready.returncode:
        return "needs the venv module of /usr/bin/python3: apt install python3-venv"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "needs mount namespaces"
    return ""


class CleanRoot:
    """A root below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in FOLDERS:
            (folder / name).mkdir(parents=True)
        for name, target in LINKS.items():
            (folder / name).symlink_to(target)
        for name in FILES:
            if (Path("/etc") / name).exists():
                shutil.copy(Path("/etc") / name, folder / "etc" / name)

    def run(self, command: str, seconds: float = 240) -> subprocess.CompletedProcess[str]:
        """A line of bash in there, as root."""
        line = ["unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh", str(self.folder), PATH]
        return subprocess.run([*line, command], capture_output=True, text=True, check=False, timeout=seconds)
