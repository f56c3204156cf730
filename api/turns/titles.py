"""How titles go on: "X", "X #2", "X #3"."""

import re

CHARACTERS_MAX = 100
_NUMBERED = re.compile(r"(?P<title>.+) #(?P<number>[1-9][0-9]{0,8})", re.DOTALL)


def next_title(title: str) -> str:
    """The title of what continues a session of that title: "X #2" behind "X", "X #3" behind that; none behind none."""
    if not title:
        return ""
    found = _NUMBERED.fullmatch(title)
    name, number = (found["title"], int(found["number"])) if found else (title, 1)
    suffix = f" #{number + 1}"
    return name[: CHARACTERS_MAX - len(suffix)] + suffix
