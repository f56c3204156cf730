"""Log lines on stderr: JSON for machines, or readable where a person looks. Never content, never keys."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import NoReturn

import msgspec
import structlog
from structlog.typing import Processor  # noqa: TC002 (needed by mypy and readers alike)


def configure(level: str = "info", *, json: bool | None = None) -> None:
    """Set up structured logging. `json` None: JSON unless stderr is a terminal."""
    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    wrapper = structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()])
    if as_json:
        structlog.configure(
            processors=[
                *shared,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(serializer=_serialize),
            ],
            wrapper_class=wrapper,
            logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[*shared, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())],
            wrapper_class=wrapper,
            logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
            cache_logger_on_first_use=True,
        )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without any log line: for a command that says itself what it does."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    try:
        yield
    finally:
        structlog.configure(**before)


def _drop(_logger: object, _method: str, _line: object) -> NoReturn:
    raise structlog.DropEvent


def _serialize(line: object, **_: object) -> bytes:
    return msgspec.json.encode(line, enc_hook=str)
