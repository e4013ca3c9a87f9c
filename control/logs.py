"""The server's log: JSON lines, or text for people on a terminal. What looks like a secret is taken out."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET = re.compile(r"lox_(agt|cred|api|ses)_([0-9a-f]{32})_[A-Za-z0-9_-]+")
_NAMES = {"password", "token", "secret", "authorization", "cookie", "credential", "registration_token"}
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


def redact(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor that does it: which secret it was stays readable, what it is does not."""
    for name, value in event.items():
        if name.lower() in _NAMES:
            event[name] = "(not shown)"
        elif isinstance(value, str):
            event[name] = _SECRET.sub(r"lox_\1_\2_(not shown)", value)
    return event


def set_up(level: str, style: str) -> None:
    """Begin logging to stderr. `style`: json, text, or auto: text on a terminal."""
    text = style == "text" or (style == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: Any = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if text else _json()
    handler = logging.StreamHandler(sys.stderr)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove, renderer]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    for chatty in ("aiohttp.access", "asyncio", "aiosqlite", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _json() -> Any:
    return structlog.processors.JSONRenderer()
