"""Whom to trust: the authority of a server that this host never heard of, known by its fingerprint."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import sys
from urllib.parse import urlsplit

from lox.passwords import can_prompt
from model.errors import ConfigError, Refused, StoreError, Transient, Unreachable, UsageError
from repository.store.https import Https, tls

_PEM_MAX = 64 << 10
_FINGERPRINT = re.compile(r"(?:sha256:)?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})")
_SHOWN_BY = "'lox-server check' shows it on the server"


def parse_fingerprint(text: str) -> str:
    """A SHA-256 as ``sha256:`` and 64 digits, also if colons stand between bytes. Raises UsageError."""
    found = _FINGERPRINT.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError("not a fingerprint", subject=text, hint=f"write sha256: and 64 digits; {_SHOWN_BY}")
    return "sha256:" + found[1].replace(":", "")


def fingerprint(pem: str) -> str:
    """That of the only certificate in a text. Raises ConfigError."""
    try:
        der = ssl.PEM_cert_to_DER_cert(pem.strip())
    except ValueError as error:
        raise ConfigError("not a certificate", why="it is not one certificate in PEM") from error
    return "sha256:" + hashlib.sha256(der).hexdigest()


def authority_of(url: str) -> str:
    """The certificate of the server's own authority, as it says; whether it is true is for the caller to find out.

    Raises Unreachable, or ConfigError if the server has none: then a public authority vouches for it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version, context.check_hostname, context.verify_mode = ssl.TLSVersion.TLSv1_3, False, ssl.CERT_NONE
    parts = urlsplit(url)
    try:
        answer = Https(parts.hostname or "", parts.port, context).request("GET", "/ca.crt", {}, limit=_PEM_MAX)
    except (Transient, Refused, StoreError) as error:
        raise Unreachable("the server cannot be reached", subject=url, why=error.why) from error
    if not answer.ok:
        hint = "leave --fingerprint out, or name the certificate to trust with --ca-file"
        raise ConfigError("the server has no authority of its own", subject=url, why=answer.why, hint=hint)
    return answer.body.decode("ascii", "replace")


def trusted(url: str, wanted: str | None, known: str) -> str:
    """The certificate (PEM) by which to trust the server at `url`; empty: the host trusts it anyway.

    `wanted` is a fingerprint, `known` what was trusted at an earlier login. Without either, and if the host does not
    know the authority, a person is asked. Raises Unreachable if nobody vouches for the server.
    """
    if wanted is None and (known or _vouched(url, "")):
        return known
    ca = authority_of(url)
    found = fingerprint(ca)
    if wanted is None:
        _ask(url, found)
    elif found != wanted:
        why = f"its authority has the fingerprint {found}"
        hint = f"somebody may stand in between, or the server was made anew; {_SHOWN_BY}"
        raise Unreachable("this is not the server that is meant", subject=url, why=why, hint=hint)
    if not _vouched(url, ca):
        raise Unreachable("the server is not trusted", subject=url, why="its authority did not sign its certificate")
    return ca


def _vouched(url: str, ca: str) -> bool:
    """Whether its certificate is of that authority, or of one that the host trusts. Nothing secret is sent."""
    parts = urlsplit(url)
    try:
        Https(parts.hostname or "", parts.port, tls(ca_text=ca or None)).request("GET", "/healthz", {})
    except Refused:
        return False
    except StoreError:
        return True  # it is away, which the login itself will tell
    return True


def _ask(url: str, found: str) -> None:
    if not can_prompt():
        why = f"this host does not know its authority, whose fingerprint is {found}"
        hint = f"compare it ({_SHOWN_BY}), and give it with --fingerprint"
        raise Unreachable("the server is not trusted", subject=url, why=why, hint=hint)
    said = _asked(
        f"This host does not know the authority that vouches for {url}. Its fingerprint is\n{found}\n"
        f"Compare it: {_SHOWN_BY}.\nTrust it? yes, no, or the fingerprint: "
    ).lower()
    if said != "yes" and said.replace(":", "") not in (found.replace(":", ""), found.removeprefix("sha256:")):
        hint = f"with --fingerprint nobody is asked; {_SHOWN_BY}"
        raise Unreachable("the server is not trusted", subject=url, hint=hint)


def _asked(question: str) -> str:
    """What is typed on the terminal: standard input may hold the token."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        print(question, end="", file=sys.stderr, flush=True)
        return sys.stdin.readline(200).strip()
    with os.fdopen(fd, "rb+", buffering=0) as terminal:
        terminal.write(question.encode())
        return terminal.readline(200).decode("utf-8", "replace").strip()
