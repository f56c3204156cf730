"""Gathered rows: many with one statement, in order, none twice."""

import sqlite3
from contextlib import closing

import pytest

from projections.gathered import SIZES, Gathered, many

INSERT = "INSERT INTO seen VALUES (?, ?)"


def test_a_statement_takes_so_many_rows_behind_its_values() -> None:
    assert many(INSERT, 3) == "INSERT INTO seen VALUES (?, ?), (?, ?), (?, ?)"
    nested = "WITH new (a) AS (VALUES (?)) UPDATE t SET a = new.a FROM new WHERE b = max(1, 2)"
    assert many(nested, 2) == nested.replace("(?)", "(?), (?)")


@pytest.mark.parametrize("sql", ["DELETE FROM t WHERE a = ?", "INSERT INTO t VALUES (?), (?) UNION VALUES (?)"])
def test_a_statement_without_one_row_is_refused(sql: str) -> None:
    with pytest.raises(ValueError, match="one row of parameters"):
        many(sql, 2)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 63, 64, 65, 1_000])
def test_rows_are_written_in_order_and_once(count: int) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE seen (number, twice)")
        texts: list[str] = []
        database.set_trace_callback(texts.append)
        gathered = Gathered((INSERT,), database.execute)
        for number in range(count):
            gathered.rows[INSERT].append((number, 2 * number))
        gathered.flush()
        gathered.flush()
        written = [text for text in texts if text.startswith("INSERT")]
        assert database.execute("SELECT * FROM seen ORDER BY rowid").fetchall() == [(n, 2 * n) for n in range(count)]
        assert len(written) <= count // SIZES[0] + 4 * (len(SIZES) - 1)
