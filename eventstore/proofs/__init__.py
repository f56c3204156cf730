"""What can be proved of a log to whoever does not trust its machine: a Merkle tree, and what was signed of it."""
