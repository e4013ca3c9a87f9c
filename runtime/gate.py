"""Where lanes in other processes reach the services of a run: a socket of this host, or one of the network.

On one host it is a Unix socket in the private directory of the run (0700): whoever can reach it is us.

Between hosts it is TLS under a certificate that is made for the run and lives in memory and in the private directory
of the run, and both ends prove that they know the token of the cluster before anything else is read: a `Door` carries
a tag over the certificate that only a holder of the token can make, and a caller answers a challenge that is bound to
the certificate it sees. What travels to the lanes, the door, is worth nothing without the token.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import ssl
import stat
import struct
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

from model.errors import ConfigError, RunFailed

BACKLOG = 128
HANDSHAKE_SECONDS = 20.0
STRANGERS = 64  # callers that have not proved themselves yet, at a time
MESSAGE_MAX = 256 << 20  # bytes; the largest are a few hundred KiB
CHALLENGE = 32  # bytes
TOKEN_LEAST, TOKEN_MOST = 32, 4096  # bytes of a token file
_LENGTH = struct.Struct(">Q")


class Messages(Protocol):
    """A connection that carries whole messages: `multiprocessing.connection.Connection`, or `Channel`."""

    def send_bytes(self, buf: bytes) -> None: ...
    def recv_bytes(self) -> bytes: ...
    def close(self) -> None: ...


class Way(Protocol):
    """What a lane is given to reach a gate by; pickles."""

    def connect(self) -> Messages:
        """A new connection. Raises OSError, RunFailed."""
        ...


class Gate(Protocol):
    """The server's end."""

    @property
    def way(self) -> Way: ...

    def accept(self) -> socket.socket:
        """Wait for a caller. Raises OSError, also once closed."""
        ...

    def admit(self, caller: socket.socket) -> Messages:
        """Make sure that the caller may ask; takes a while. Raises OSError or EOFError if not."""
        ...

    def close(self) -> None: ...


# ---- one host


@dataclass(frozen=True, slots=True)
class UnixWay:
    """The path of a socket."""

    path: str

    def connect(self) -> Messages:
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connecting.connect(self.path)
        except OSError:
            connecting.close()
            raise
        return Connection(connecting.detach())


class _Listening:
    """A listening socket, and how to stop waiting for it."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    def accept(self) -> socket.socket:
        return self._listener.accept()[0]

    def close(self) -> None:
        with suppress(OSError):  # not connected, says the system, and wakes whoever waits for a connection
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class UnixGate(_Listening):
    """A socket in `directory`, which must be private."""

    def __init__(self, directory: str) -> None:
        self.way: Way = UnixWay(os.path.join(directory, "services"))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(os.path.join(directory, "services"))
        listener.listen(BACKLOG)
        super().__init__(listener)

    def admit(self, caller: socket.socket) -> Messages:
        return Connection(caller.detach())


# ---- many hosts


class Channel:
    """Whole messages over TLS: a length, then so many bytes."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls

    def send_bytes(self, buf: bytes) -> None:
        self._tls.sendall(_LENGTH.pack(len(buf)) + buf)

    def recv_bytes(self) -> bytes:
        (length,) = _LENGTH.unpack(self.take(_LENGTH.size))
        if length > MESSAGE_MAX:
            raise OSError(f"a message of {length} bytes")
        return self.take(length)

    def take(self, length: int) -> bytes:
        """Exactly so many bytes. Raises EOFError, OSError."""
        room = bytearray(length)
        view, have = memoryview(room), 0
        while have < length:
            got = self._tls.recv_into(view[have:])
            if not got:
                raise EOFError("the connection has ended")
            have += got
        return bytes(room)

    def close(self) -> None:
        self._tls.close()


@dataclass(frozen=True, slots=True)
class Door:
    """Where the gate of a run is, and the certificate behind it; `tag` proves to who knows the token that it is."""

    host: str
    port: int
    certificate: str  # PEM
    tag: bytes

    def connect(self) -> Messages:
        token = token_of_this_host()
        if not hmac.compare_digest(self.tag, _tag(token, self.host, self.port, self.certificate)):
            raise RunFailed(
                "this host has another token than the one that runs the backup",
                subject=socket.gethostname(),
                hint="one token file for all hosts of a cluster",
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # one certificate is trusted, this one
        context.load_verify_locations(cadata=self.certificate)
        with socket.create_connection((self.host, self.port), HANDSHAKE_SECONDS) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = context.wrap_socket(plain)  # from here on `plain` is empty
        channel = Channel(tls)
        try:
            tls.sendall(_answer(token, self.certificate, channel.take(CHALLENGE)))
            tls.settimeout(None)
        except BaseException:
            channel.close()
            raise
        return channel


class NetworkGate(_Listening):
    """Listens on `host`; `port` 0 is any. `directory` must be private: the key of the certificate passes through it."""

    def __init__(self, host: str, port: int, token: bytes, directory: str) -> None:
        self._token = token
        certificate, key = _certificate()
        self._certificate = certificate
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        with tempfile.NamedTemporaryFile("w", dir=directory, prefix="gate-") as file:  # mode 0600
            file.write(key + certificate)
            file.flush()
            self._context.load_cert_chain(file.name)
        self._strangers = threading.BoundedSemaphore(STRANGERS)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            why = (error.strerror or "").lower()
            raise RunFailed("lanes cannot reach this host", subject=f"{host}:{port}", why=why) from error
        bound = listener.getsockname()[1]
        self.way: Way = Door(host, bound, certificate, _tag(token, host, bound, certificate))
        super().__init__(listener)

    def admit(self, caller: socket.socket) -> Messages:
        with caller:  # empty once TLS has taken it over
            if not self._strangers.acquire(blocking=False):
                raise OSError("too many callers at once")
            try:
                return self._admit(caller)
            finally:
                self._strangers.release()

    def _admit(self, caller: socket.socket) -> Messages:
        caller.settimeout(HANDSHAKE_SECONDS)
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        tls = self._context.wrap_socket(caller, server_side=True)
        channel = Channel(tls)
        try:
            challenge = secrets.token_bytes(CHALLENGE)
            tls.sendall(challenge)
            answer = channel.take(hashlib.sha256().digest_size)
            if not hmac.compare_digest(answer, _answer(self._token, self._certificate, challenge)):
                raise OSError("a caller that does not know the token")
            tls.settimeout(None)
        except BaseException:
            channel.close()
            raise
        return channel


def _certificate() -> tuple[str, str]:
    """A certificate nobody has seen before, and its key, as PEM."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lox")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of hosts differ
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    kind, encoding = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    pem = key.private_bytes(encoding, kind, serialization.NoEncryption())
    return certificate.public_bytes(encoding).decode(), pem.decode()


def _tag(token: bytes, host: str, port: int, certificate: str) -> bytes:
    return prove(token, b"door", f"{host} {port}\n{certificate}".encode())


def _answer(token: bytes, certificate: str, challenge: bytes) -> bytes:
    return prove(token, b"lane", challenge + certificate.encode())


def prove(token: bytes, purpose: bytes, about: bytes) -> bytes:
    """What only a holder of the token can say about `about`."""
    key = hmac.digest(token, b"lox " + purpose, "sha256")
    return hmac.digest(key, about, "sha256")


# ---- the token


def read_token(path: str) -> bytes:
    """The token in a file that only its owner may read. Raises ConfigError."""
    hint = "openssl rand -hex 32 > FILE; chmod 600 FILE; the same on all hosts of the cluster"
    try:
        with open(path, "rb") as file:
            status, data = os.fstat(file.fileno()), file.read(TOKEN_MOST + 1)
    except OSError as error:
        raise ConfigError(
            "cannot read the token", subject=path, why=(error.strerror or "").lower(), hint=hint
        ) from error
    if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid not in (0, os.geteuid()):
        raise ConfigError("others can read or change the token", subject=path, hint=f"chmod 600 {path}")
    token = data.strip()
    if not TOKEN_LEAST <= len(token) <= TOKEN_MOST or not token.isascii():
        raise ConfigError("not a token", subject=path, why="32 to 4096 characters are one", hint=hint)
    return token


def token_of_this_host() -> bytes:
    """The token Ray was started with here. Raises RunFailed, ConfigError."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token.encode()
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH", ""):
        return read_token(path)
    raise RunFailed(
        "Ray runs here without a token",
        subject=socket.gethostname(),
        hint="RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE in its unit",
    )
