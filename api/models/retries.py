"""When a model server is asked again, and after how long.

Only where nothing can have come of the first request, for an answer that is made twice is paid for twice: no connection
could be made, or the server said that it is busy (429, 503) and for how long, and that is short. Whatever else fails
(a time-out, a hang-up, any other status) may have reached a model, and is told as it is.
"""

import msgspec

BUSY = frozenset({429, 503})
RETRY_AFTER_MAX_S = 5.0


class Retries(msgspec.Struct, frozen=True):
    """How often a model server is asked again, and how long to wait before the first of these times, in seconds."""

    times: int = 2
    pause_s: float = 0.25

    def pause_before(self, tried: int, share: float, asked_s: float = 0.0) -> float | None:
        """Seconds until the next try, after `tried` retries; None where there is to be none.

        The pause doubles each time; `share`, from 0 to 1, is how much of its upper half is waited, so that those who
        failed at once do not come back at once. `asked_s` is what the server asks for, on top of which it comes.
        """
        if tried >= self.times or asked_s > RETRY_AFTER_MAX_S:
            return None
        return asked_s + self.pause_s * (1 << tried) * (1 + share) / 2


def seconds_in(retry_after: str) -> float | None:
    """The seconds that a `retry-after` header names; None where it names a date, or nothing."""
    return float(retry_after) if retry_after.replace(".", "", 1).isdecimal() else None
