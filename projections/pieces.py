"""The pieces in which an answer was streamed: what a turn's facts keep of them, so that it can be streamed again.

The text of an answer is in its message; of each piece there is how long it was, and what it was a piece of. Where only
content was streamed, and without log probabilities, there are just the lengths. The numbers are stored: they never
change.

    0 content              length: characters
    1 refusal              characters
    2 reasoning_content    characters
    3 reasoning            characters
    4 annotations          entries of the list
    5 reasoning_items      entries of the list
    1000 + k               characters of the arguments or the input of tool call k; the first of them opens the call
    2000 + k               characters of part k of the reasoning's summary; the first of them opens the part

Calls and parts are numbered in the order in which they came. What is beyond the thousandth of them is not counted, and
is streamed again whole.
"""

from collections.abc import Iterator
from typing import NamedTuple

CONTENT, REFUSAL, REASONING_CONTENT, REASONING, ANNOTATIONS, REASONING_ITEMS = range(6)
CALL, SUMMARY = 1_000, 2_000
PLACES_MAX = 1_000

NAMES = ("content", "refusal", "reasoning_content", "reasoning", "annotations", "reasoning_items")
# The fields of an assistant message in which something is said, in the order of an answer that came at once.
ORDER = (
    *("reasoning_content", "reasoning", "reasoning_summary", "reasoning_items"),
    *("content", "refusal", "annotations", "tool_calls"),
)
TEXTS = {name: code for code, name in enumerate(NAMES[:4])}
LISTS = {name: code for code, name in enumerate(NAMES) if code > REASONING}
CODES = TEXTS | LISTS


class Pieces(NamedTuple):
    """The pieces of an answer: their lengths, what they were pieces of, how many log probabilities came with each.

    `fields` is empty where all were content, `tokens` where there were no log probabilities.
    """

    lengths: tuple[int, ...] = ()
    fields: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()

    def each(self) -> Iterator[tuple[int, int, int]]:
        """Code, length and tokens of each piece."""
        for number, length in enumerate(self.lengths):
            code = self.fields[number] if number < len(self.fields) else CONTENT
            yield code, length, self.tokens[number] if number < len(self.tokens) else 0

    def runs(self) -> "Pieces":
        """The same with each run of pieces of one thing as one piece."""
        if not self.fields:
            return Pieces((sum(self.lengths),), (), (sum(self.tokens),))
        runs: list[tuple[int, int, int]] = []
        for code, length, tokens in self.each():
            if runs and runs[-1][0] == code:
                runs[-1] = code, runs[-1][1] + length, runs[-1][2] + tokens
            else:
                runs.append((code, length, tokens))
        codes, lengths, counts = zip(*runs, strict=True)
        return Pieces(lengths, codes, counts)


WHOLE = Pieces()


def name_of(code: int) -> str:
    """The field of an assistant message that pieces of this code are pieces of; empty where nobody knows it."""
    if 0 <= code < len(NAMES):
        return NAMES[code]
    if CALL <= code < CALL + PLACES_MAX:
        return "tool_calls"
    return "reasoning_summary" if SUMMARY <= code < SUMMARY + PLACES_MAX else ""
