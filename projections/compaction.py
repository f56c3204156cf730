"""What a compaction item holds: a summary that stands for a conversation, as its client carries it around.

`encrypted_content` is what OpenAI's API calls it. Here it is neither encrypted nor signed: it is the summary's text,
compressed, as one opaque word that begins with its version. There is nothing to hide from the client whose own
conversation it is, and nothing to gain by forging it, for a client can say in its input whatever it likes. What is
checked is that it arrived whole: zlib's checksum fails on what was cut or garbled. No server keeps anything of it, so
that any turnlog can read it.
"""

import base64
import binascii
import zlib

VERSION = "tlc1_"
TEXT_BYTES_MAX = 200_000  # of what is in the log; at the edge it is less, and once was this


def sealed(text: str) -> str:
    """The text as a compaction item holds it."""
    return VERSION + base64.urlsafe_b64encode(zlib.compress(text.encode())).decode()


def opened(content: object, bytes_max: int = TEXT_BYTES_MAX) -> str:
    """The text that a compaction item holds; empty where it was not made here, did not arrive whole, or is longer."""
    if not isinstance(content, str) or not content.startswith(VERSION):
        return ""
    inflating = zlib.decompressobj()
    try:
        packed = base64.b64decode(content.removeprefix(VERSION), altchars=b"-_", validate=True)
        text = inflating.decompress(packed, bytes_max).decode()
    except (binascii.Error, zlib.error, ValueError):  # ValueError: not ASCII, not UTF-8
        return ""
    return text if inflating.eof and not inflating.unused_data else ""
