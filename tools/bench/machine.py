"""Where and when: figures without it mean nothing."""

import datetime
import os
import platform
import re
import sqlite3
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True):
    """What the figures were measured on. `date` is RFC 3339 in UTC."""

    cpu: str
    cores: int
    python: str
    sqlite: str
    kernel: str
    date: str


def this_machine() -> Machine:
    """The machine as it is now."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        kernel=f"{platform.system()} {platform.release()}",
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _cpu() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
