"""Whether a log is what was recorded."""
