"""Files of views that nobody needs any more: what a rebuild or a comparison left behind that was killed."""

import contextlib
from pathlib import Path

from projections import succession


def drop(path: Path) -> None:
    """Delete the views in `path`, which nobody has open, and what is left beside them."""
    succession.remove(path)
    sweep(path)


def sweep(path: Path) -> None:
    """Delete what is beside the views in `path`: what was to take their place, and the directories of comparisons."""
    succession.sweep(path)
    for file in path.parent.glob(f"{path.name}.*"):
        file.unlink(missing_ok=True)
    for directory in path.parent.glob("tmp*"):
        for file in directory.glob(f"{path.name}*"):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or no directory: nothing of ours
            directory.rmdir()
