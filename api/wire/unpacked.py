"""What the compactions of a request hold: a few hundred bytes of its body can stand for pages of text."""

from api.problem import Problem
from projections import compaction

TEXT_BYTES_MAX = 65_000  # of one: the longest summary that is made here (16,000 characters, and its heading)
CHARACTERS_MAX = 1_000_000  # of all in one request


class Unpacked:
    """Counts what the compactions of one request hold, in whichever of its lists they stand."""

    def __init__(self) -> None:
        self._characters = 0

    def check(self, content: str | None, param: str, where: str) -> None:
        """Take in the compaction at `where` in the list `param`; raises `Problem`. What is too much is not unpacked."""
        text = compaction.opened(content, TEXT_BYTES_MAX)
        if not text:
            raise Problem(
                "This compaction was not made by turnlog, or did not arrive whole: send it as POST "
                "/v1/responses/compact gave it, or the conversation itself.",
                param=f"{where}.encrypted_content",
                code="invalid_encrypted_content",
            )
        self._characters += len(text)
        if self._characters > CHARACTERS_MAX:
            raise Problem(
                f"Invalid '{param}': the compactions of a request may hold at most {CHARACTERS_MAX:,} characters in "
                "all. Send the newest alone: it stands for all that was compacted with it.",
                param=param,
                code="string_above_max_length",
            )
