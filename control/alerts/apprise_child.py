"""``python -m control.alerts.apprise_child``: sends one message with apprise; question and answer are JSON.

Every connection is looked at right where Python makes it (an audit hook, which nothing can take away again): what a
redirect leads to, or what DNS says the second time, is refused like everything else. Programs cannot be started, and of
files only those of Python itself can be read: URLs of apprise may name a file as a template of what is sent.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Any

from model.addresses import Address, address, is_public, is_within, network

QUESTION_MAX = 1 << 20
WHY_MAX = 300
_CONNECTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_FILES = frozenset({"/etc/mime.types", "/etc/localtime", "/dev/urandom", "/dev/null"})
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_RUNS = frozenset(
    {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "subprocess.Popen"}
)


class Watch:
    """Refuses with PermissionError. `refused`: what was refused last."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.allowed = [network(text) for text in asked["allowed"]]
        self.own = {address(text) for text in asked["own"]}
        self.server = str(asked["server"])
        self.plain = bool(asked["plain"])  # without TLS: only where the operator allows it
        self.own |= _addresses(self.server)
        self.folders = [os.path.realpath(one) for one in {*sysconfig.get_paths().values(), *sys.path} if one != "/"]
        self.refused = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """As ``sys.addaudithook`` calls it."""
        if event in _RUNS:
            raise PermissionError("programs cannot be started here")
        if event == "open" and not self._readable(arguments[0], arguments[2]):
            self.refused = "files cannot be read here"
            raise PermissionError(self.refused)
        if event in _CONNECTS and not self._may(arguments[0], arguments[1]):
            self.refused = "it has no address in the internet, nor in the setting alert_networks"
            raise PermissionError(self.refused)

    def _readable(self, path: Any, flags: Any) -> bool:
        if isinstance(path, int):  # open already
            return True
        if not isinstance(flags, int) or flags & _CHANGES:
            return False
        real = os.path.realpath(os.fsdecode(path))
        return real in _FILES or any(Path(real).is_relative_to(folder) for folder in self.folders)

    def _may(self, used: Any, where: Any) -> bool:
        if used.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        if where is None:  # on a connection that was looked at
            return True
        try:
            one = address(where[0])
        except (ValueError, TypeError, IndexError, AttributeError):
            return False
        return is_within(one, self.allowed) or (is_public(one) and one not in self.own and not self.plain)


def _addresses(host: str) -> set[Address]:
    try:
        return {address(str(one[4][0])) for one in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return set()


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Sends the message of `asked`, or only looks at its URL if there is none."""
    import apprise  # type: ignore[import-untyped,unused-ignore]

    watch = Watch(asked)
    sys.addaudithook(watch)
    asset = apprise.AppriseAsset(app_id="LOX Backup", secure_logging=True, async_mode=False, storage_mode="memory")
    service = apprise.Apprise.instantiate(asked["url"], asset=asset)
    if service is None:
        return {"sent": False, "why": "apprise does not understand this URL"}
    if "body" not in asked:
        return {"sent": True, "why": ""}
    with apprise.LogCapture(level=apprise.logging.WARNING, fmt="%(message)s") as log:  # type: ignore[no-untyped-call,unused-ignore]
        sent = service.notify(title=asked["title"], body=asked["body"])
        lines = log.getvalue().strip().splitlines()
    why = watch.refused or (lines[-1] if lines else "the service did not take it")
    return {"sent": bool(sent), "why": why[:WHY_MAX]}


def main() -> None:
    """One question, one answer."""
    told = answer(json.loads(sys.stdin.buffer.read(QUESTION_MAX)))
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
