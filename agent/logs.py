"""The agent's log: for people on stderr (the journal of systemd keeps it), and in files that are rotated.

Secrets are taken out of every line, wherever they stand (`agent.redact`).
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, TextIO, cast

import structlog

from agent.redact import redacted

FILE_BYTES, FILES = 10 << 20, 5
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


def redactor(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor of structlog that does it."""
    return cast(MutableMapping[str, Any], redacted(dict(event)))


def set_up(level: str, folder: Path | None, stream: TextIO | None = None) -> str:
    """Begin logging. Returns why there is no log file, if there is to be one; empty if all is well."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redactor,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handlers: list[logging.Handler] = [_handler(logging.StreamHandler(stream or sys.stderr), shared, people=True)]
    trouble = ""
    if folder is not None:
        try:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            file = logging.handlers.RotatingFileHandler(folder / "agent.log", maxBytes=FILE_BYTES, backupCount=FILES)
            handlers.append(_handler(file, shared, people=False))
        except OSError as error:
            trouble = f"no log in {folder}: {(error.strerror or '').lower()}"
    logging.raiseExceptions = False  # a full disk is no reason to print a traceback for each line
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(_LEVELS[level])
    for chatty in ("aiohttp.access", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return trouble


def _handler(handler: logging.Handler, shared: list[Any], people: bool) -> logging.Handler:
    renderer: Any = structlog.processors.JSONRenderer()
    if people:
        renderer = structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redactor, renderer],
        )
    )
    return handler


def log() -> structlog.stdlib.BoundLogger:
    """The logger of the agent."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger("lox-agent"))
