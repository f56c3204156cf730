"""What of a compressed transcript is copied, what is summary, and what is new.

The original begins a compressed transcript with the first messages of the old one, a summary of the middle, and the
last messages, all as rows of their own. Where the summary's role would stand beside its own kind, it is written into
the first message of that tail, behind what that says. What follows is new.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tools.hermes.rows import Message

_BEGINNINGS = ("[CONTEXT COMPACTION", "[CONTEXT SUMMARY]:")
_MERGED = "[END OF PRIOR CONTEXT — COMPACTION SUMMARY BELOW]"
_END = "--- END OF CONTEXT SUMMARY"
_ALIKE_MAX = 400  # messages of such a tail
_ALIKE_SHARE = 0.5  # of a tail's messages must be equal to be known again though others were shortened


class Copies(NamedTuple):
    """How a transcript follows from the one before it.

    Copied are its first `head` messages, and `tail` ones behind the summary, which are the old one's last. `kept_tail`
    is how many of these to keep so that roles alternate around a summary that had been written into the tail. What
    is `own` was said here.
    """

    head: int
    tail: int
    kept_tail: int
    summary: Message | None
    own: list[Message]

    @property
    def is_merged(self) -> bool:
        """Whether the summary stands in the first message of the tail."""
        return self.summary is not None and _MERGED in self.summary.text

    def pairs(self, before: Sequence[Message], rows: Sequence[Message]) -> Iterator[tuple[Message, Message]]:
        """Each copied message and its copy."""
        yield from zip(before[: self.head], rows[: self.head], strict=False)
        first = self.head + (self.summary is not None and not self.is_merged)
        yield from zip(before[len(before) - self.tail :], rows[first : first + self.tail], strict=False)


def is_summary(message: Message) -> bool:
    """Whether a message is, or holds, a summary of the original's."""
    return message.text.startswith(_BEGINNINGS) or _MERGED in message.text


def summary_text(message: Message) -> str:
    """The summary in such a message, without what the message said before."""
    return message.text.partition(_MERGED)[2].partition(_END)[0].strip() if _MERGED in message.text else message.text


def copied(before: Sequence[Message], rows: Sequence[Message]) -> Copies:
    """How the transcript `rows` follows from that of `before`."""
    at = _summary_at(before, rows)
    head = _common(before, rows if at is None else rows[:at])
    if at is None:
        return Copies(head, 0, 0, None, list(rows[head:]))  # nothing was summed up: what is no copy was said here
    strays = list(rows[head:at])  # neither copied nor summed up: kept
    is_merged = _MERGED in rows[at].text
    behind = rows[at:] if is_merged else rows[at + 1 :]
    tail = _tail(before[head:], behind, is_merged=is_merged)
    kept = _alternating(before, head, tail) if is_merged and tail else tail
    return Copies(head, tail, kept, rows[at], strays + list(behind[max(tail, int(is_merged)) :]))


def _summary_at(before: Sequence[Message], rows: Sequence[Message]) -> int | None:
    """Where the summary stands: the first that is no copy, or one in the very words of the one before it."""
    summaries = [number for number, row in enumerate(rows) if is_summary(row)]
    if new := [number for number in summaries if not _is_same(before, number, rows[number])]:
        return new[0]
    count = _common(before, rows)
    return summaries[-1] if summaries and count < len(before) and summaries[-1] < count else None


def common(before: Sequence[Message], rows: Sequence[Message]) -> int:
    """How many messages both begin with."""
    return _common(before, rows)


def rounds(rows: Sequence[Message], *, has_base: bool) -> list[list[Message]]:
    """The transcripts that a session had one after another, where it was compacted in place.

    The original keeps the old rows then, marked, and adds the compacted transcript behind them. Each begins with the
    first messages of the one before, and its summary; a session that `has_base` begins with one of its parent.
    """
    if not any(row.is_compacted for row in rows):
        return [list(rows)]
    starts, is_own = [0], has_base
    for number, row in enumerate(rows):
        if is_summary(row):
            if not is_own:
                starts.append(number - _repeated(rows[starts[-1] : number]))
            is_own = False
    return [list(rows[start:end]) for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)]


def _repeated(rows: Sequence[Message]) -> int:
    """How many of the first messages stand again at the end."""
    return max(n for n in range(max(len(rows), 1)) if _common(rows, rows[len(rows) - n :]) == n)


def _is_same(before: Sequence[Message], number: int, row: Message) -> bool:
    return number < len(before) and before[number].mark == row.mark


def _common(before: Sequence[Message], rows: Sequence[Message]) -> int:
    count = 0
    for old, new in zip(before, rows, strict=False):
        if old.mark != new.mark:
            break
        count += 1
    return count


def _tail(before: Sequence[Message], rows: Sequence[Message], *, is_merged: bool) -> int:
    """How many of the first `rows` are the last of `before`: all equal, else most of them, as some are shortened."""
    longest = min(len(before), len(rows))
    for share, limit in ((1.0, longest), (_ALIKE_SHARE, min(longest, _ALIKE_MAX))):
        for length in range(limit, 0, -1):
            if _is_alike(before, len(before) - length, rows, share, is_merged=is_merged):
                return length
    return 0


def _is_alike(before: Sequence[Message], first: int, rows: Sequence[Message], share: float, *, is_merged: bool) -> bool:
    """Whether `before` from its message `first` on is what `rows` begin with; so great a share of it must be equal."""
    length = len(before) - first
    if before[first].role != rows[0].role or (is_merged and before[first].text not in rows[0].text):
        return False
    allowed = int((1 - share) * (length - int(is_merged)))
    for place in range(int(is_merged), length):
        old, new = before[first + place], rows[place]
        allowed -= old.mark != new.mark
        if allowed < 0 or old.role != new.role:
            return False
    return True


def _alternating(before: Sequence[Message], head: int, tail: int) -> int:
    """How long a tail must be for a summary of the other role to fit in before it."""
    first = len(before) - tail
    wanted = "user" if before[first].role == "assistant" else "assistant"
    for place in range(first - 1, head - 1, -1):
        if before[place].role == wanted and not before[place].calls:
            return len(before) - place
    return tail
