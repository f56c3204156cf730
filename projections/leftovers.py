"""Files of views that nobody needs any more: what a rebuild or a comparison left behind that was killed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


def drop(path: Path) -> None:
    """Delete the views in `path`, which nobody has open, and what is left beside them."""
    for file in _of(path):
        file.unlink(missing_ok=True)
    sweep(path)


def sweep(path: Path) -> None:
    """Delete what is left beside the views in `path`: half a rebuild, and the directories of comparisons."""
    kept = set(_of(path))
    for file in path.parent.glob(f"{path.name}*"):
        if file not in kept and file.is_file():
            file.unlink(missing_ok=True)
    for directory in path.parent.glob("tmp*"):
        for file in directory.glob(f"{path.name}*"):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or no directory: nothing of ours
            directory.rmdir()


def _of(path: Path) -> Iterator[Path]:
    return (path.with_name(path.name + end) for end in ("", "-wal", "-shm"))
