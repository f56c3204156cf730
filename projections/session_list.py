"""How the list of sessions is asked: which of them, from where on, in which order.

Most recently active first. Every order ends with the primary key, so that two sessions never change places between two
pages; and every filter has an index in that order, so that a page costs its rows and not the table.
"""

from collections.abc import Sequence

import msgspec

from projections.sessions import stored_source

_ORDER = "ORDER BY active_us DESC, root_id DESC, generation DESC LIMIT ? OFFSET ?"


class After(msgspec.Struct, frozen=True, array_like=True):
    """The row behind which a page begins."""

    active_us: int
    root_id: str
    generation: int


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions of a tenant: empty filters let all pass; without children only the tips are shown."""

    source: str = ""
    user_id: str = ""
    session_key: str = ""
    has_children: bool = False
    after: After | None = None
    offset: int = 0


def query(tenant: str, wanted: Wanted, rows_max: int) -> tuple[str, Sequence[object]]:
    """The SQL, made of constant pieces, and its parameters. Its rows are `SessionRow`s."""
    pieces, parameters = ["tenant = ?"], [tenant]
    for column, value in (("user_id", wanted.user_id), ("session_key", wanted.session_key)):
        if value:
            # Said twice, for SQLite to see that the index without empty values will do.
            pieces.append(f"{column} = ? AND {column} <> ''")
            parameters.append(value)
    if wanted.source:
        source = stored_source(wanted.source)
        pieces.append("source = ? AND source <> ''" if source else "source = ?")
        parameters.append(source)
    if not wanted.has_children:
        pieces.append("superseded = 0")
    more: list[object] = []
    if wanted.after:
        pieces.append("(active_us, root_id, generation) < (?, ?, ?)")
        more += msgspec.structs.astuple(wanted.after)
    sql = f"SELECT * FROM sessions WHERE {' AND '.join(pieces)} {_ORDER}"  # noqa: S608 (our own pieces)
    return sql, (*parameters, *more, rows_max, wanted.offset)
