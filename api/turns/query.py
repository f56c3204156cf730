"""What a person types into a search box, as a query that the index understands: any text is one, none is an error.

Words must all be there. "Words in quotes" and words that belong together (`well-known`) must stand side by side. A star
at the end of a word stands for any ending. Everything else is taken as it is.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from projections.passages import quoted

WORDS_MAX = 32
PREFIX_CHARACTERS_MIN = 2  # one letter begins too many words to be looked up in time

_TERM = re.compile(r'"([^"]*)"(\*?)|([^\s"]+)')


class Term(NamedTuple):
    """Words that stand side by side; the last one with any ending, where it `is_prefix`."""

    words: tuple[str, ...]
    is_prefix: bool = False

    @property
    def for_index(self) -> str:
        """For an index that knows which words a document holds, and not where."""
        *others, last = map(quoted, self.words)
        return " AND ".join((*others, last + self._star))

    @property
    def for_texts(self) -> str:
        """For an index that knows where the words stand."""
        return quoted(" ".join(self.words)) + self._star

    @property
    def _star(self) -> str:
        return "*" if self.is_prefix else ""


def terms(text: str, words_of: Callable[[str], Sequence[str]]) -> list[Term]:
    """What is asked for, in order, as far as there are `WORDS_MAX` words; empty where there is no word in it."""
    found: list[Term] = []
    left = WORDS_MAX
    for phrase, phrase_star, chunk in _TERM.findall(text):
        words = tuple(words_of(phrase or chunk))[:left]
        if not words:
            continue
        has_star = bool(phrase_star) or chunk.endswith("*")
        is_long = len(words[-1]) >= PREFIX_CHARACTERS_MIN or not words[-1].isascii()
        found.append(Term(words, has_star and is_long))
        left -= len(words)
        if not left:
            break
    return found


def for_index(found: Sequence[Term], mark: str) -> str:
    """A query for documents that hold the mark and all the words."""
    return " AND ".join((quoted(mark), *(term.for_index for term in found)))


def for_texts(found: Sequence[Term]) -> str:
    """The whole question, for texts."""
    return " AND ".join(term.for_texts for term in found)
