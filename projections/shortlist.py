"""What an index of words can not tell, found out from a few texts: phrases, ranks, and where the words stand.

The texts go into an index of their own, in memory, for as long as one question takes: split into words, folded and
weighed by the very code that does it for the index in `views.db`. Weights are those of the few texts alone.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

from projections.passages import MARK, TOKENIZER

SNIPPET_WORDS = 40
BEGIN, END, CUT = ">>>", "<<<", "…"

_WORDS = f"""
CREATE VIRTUAL TABLE asked USING fts5(said, content='', columnsize=0, tokenize='{TOKENIZER}');
CREATE VIRTUAL TABLE words USING fts5vocab(asked, instance);
"""
_SPLIT = "INSERT INTO asked (rowid, said) VALUES (1, ?)"
_TAKE = "SELECT term FROM words ORDER BY offset"
_CLEAR = "INSERT INTO asked (asked) VALUES ('delete-all')"

_TEXTS = f"CREATE VIRTUAL TABLE texts USING fts5(input, output, tokenize='{TOKENIZER}')"
_ADD = "INSERT INTO texts (rowid, input, output) VALUES (?, ?, ?)"
_RANK = """
SELECT rowid, snippet(texts, 0, ?1, ?2, ?3, ?4), snippet(texts, 1, ?1, ?2, ?3, ?4)
FROM texts WHERE texts MATCH ?5 ORDER BY rank, rowid
"""
_HIGHLIGHT = "SELECT rowid, highlight(texts, 0, ?1, ?1) FROM texts WHERE texts MATCH ?2 ORDER BY rowid"


class Words:
    """Splits texts into words as the index does: in lower case, without accents. For one thread."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(":memory:", isolation_level=None)
        self._database.executescript(_WORDS)

    def of(self, text: str) -> list[str]:
        """The text's words in order."""
        self._database.execute(_SPLIT, (text.replace(MARK, " "),))
        words = [word for (word,) in self._database.execute(_TAKE)]
        self._database.execute(_CLEAR)
        return words

    def close(self) -> None:
        """Let go of the memory."""
        self._database.close()


class Ranked(NamedTuple):
    """One of the texts that match: its number, and what it says around the matches, marked, of input or output."""

    number: int
    snippet: str
    is_output: bool


def ranked(texts: Sequence[tuple[str, str]], match: str) -> list[Ranked]:
    """Which of the pairs of input and output match, best first, by bm25. Blocking: for a thread of its own."""
    with closing(_filled(texts)) as database:
        rows = database.execute(_RANK, (BEGIN, END, CUT, SNIPPET_WORDS, match)).fetchall()
    return [Ranked(number, *_better(input_, output)) for number, input_, output in rows]


def matches(texts: Sequence[str], match: str) -> list[tuple[int, list[tuple[int, str]]]]:
    """Those of the texts that match, by number, each with its matching words and where they begin. Blocking."""
    with closing(_filled([(text, "") for text in texts])) as database:
        rows = database.execute(_HIGHLIGHT, (MARK, match)).fetchall()
    with closing(Words()) as words:
        return [
            (number, [(first, word) for first, piece in _found(highlighted) for word in _folded(piece, words)])
            for number, highlighted in rows
        ]


def _filled(texts: Sequence[tuple[str, str]]) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute(_TEXTS)
    database.execute("BEGIN")
    database.executemany(
        _ADD, [(n, input_.replace(MARK, " "), output.replace(MARK, " ")) for n, (input_, output) in enumerate(texts)]
    )
    return database


def _better(input_: str, output: str) -> tuple[str, bool]:
    is_output = output.count(BEGIN) > input_.count(BEGIN)
    return (output, True) if is_output else (input_, False)


def _folded(piece: str, words: Words) -> list[str]:
    """The piece's words, without asking where a plain one can be told."""
    return [piece.lower()] if piece.isascii() and piece.isalnum() else words.of(piece)


def _found(highlighted: str) -> Iterator[tuple[int, str]]:
    """The stretches between marks; where each begins, counted without the marks."""
    first = 0
    for number, piece in enumerate(highlighted.split(MARK)):
        if number % 2:
            yield first, piece
        first += len(piece)
