"""How one file of views takes the place of another, so that a crash at any moment leaves a whole one or none.

    views.db          the views that are served
    views.next.db     whole views that are to take their place
    views.next.db.*   what is being built, or brought level with the log, to become that; useless after a crash

SQLite finds a write-ahead file by the name of its database, and would take the old one's for the new one's. So the old
file goes first, with all that is beside it, and then the new one gets its name.
"""

from pathlib import Path

from eventstore.moving.whole import sync


def next_of(path: Path) -> Path:
    """Where whole views wait that are to take the place of those at `path`."""
    return path.with_name(f"{path.stem}.next{path.suffix}")


def building_of(path: Path, who: str) -> Path:
    """Where `who` builds such views."""
    next_ = next_of(path)
    return next_.with_name(f"{next_.name}.{who}")


def sweep(path: Path, *, keep: Path | None = None) -> None:
    """Remove whatever was to take the place of the views at `path`, but `keep`."""
    for found in path.parent.glob(f"{next_of(path).name}*"):
        if found != keep:
            found.unlink(missing_ok=True)


def put_in_place(whole: Path, path: Path) -> None:
    """Give the views in `whole`, which nobody has open, the name `path`. Raises `OSError`, with nothing changed where
    `whole` is gone.

    Who has the old file open goes on reading it; it is on no disk any more once they close it.
    """
    next_ = next_of(path)
    whole.replace(next_)
    remove(path)
    next_.replace(path)
    sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file of views, and what SQLite has put beside it."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
