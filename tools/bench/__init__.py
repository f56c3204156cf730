"""`turnlog bench`: what turnlog does per second, measured here and now, beside what it is meant to do."""

from tools.bench.command import bench

__all__ = ["bench"]
