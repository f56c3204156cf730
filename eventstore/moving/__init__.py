"""A log that goes from one place to another, as it is stored."""
