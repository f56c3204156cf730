"""Handlers: each decodes, calls, encodes."""
