"""How titles go on: "X", "X #2", "X #3"."""

import re

_NUMBERED = re.compile(r"\A(?P<base>.*?) #(?P<number>[1-9][0-9]{0,8})\Z", re.DOTALL)


def next_title(title: str) -> str:
    """The title of what continues something of that title; none where that had none."""
    if found := _NUMBERED.match(title):
        return f"{found['base']} #{int(found['number']) + 1}"
    return f"{title} #2" if title else ""
