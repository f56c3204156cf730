"""Puts a streamed answer together again: chunks in, one `Answer` out, and the pieces that it came in."""

from typing import Any

import msgspec

from api.models.counted import Counted
from api.models.model import NULL, Answer, Choice, Chunk, ModelBroke, ModelGarbage
from api.models.tidy import Places, tidy, tidy_logprobs
from projections.pieces import LISTS, Pieces

_encode = msgspec.json.Encoder().encode

# Said whole in each piece, where everything else that is text is said bit by bit.
_WHOLE = frozenset({"role", "id", "type", "index"})


class Gathered:
    """What has come of an answer so far."""

    __slots__ = (
        "_counted",
        "_finish",
        "_logprobs",
        "_messages",
        "_places",
        "_said",
        "_without_thoughts",
        "model",
        "usage",
    )

    def __init__(self) -> None:
        self._messages: dict[int, dict[str, Any]] = {}
        self._finish: dict[int, str] = {}
        self._logprobs: dict[int, dict[str, Any]] = {}
        self._places: dict[int, dict[str, Places]] = {}
        self._counted = Counted()
        self.usage = b""
        self.model = ""
        self._without_thoughts = False
        self._said: dict[str, Any] = {}  # of the answer as a whole

    def add(self, chunk: Chunk) -> None:
        """Take in the next chunk, and tidy it; raises `ModelGarbage` where it is nested too deeply."""
        try:
            self._take_in(chunk)
        except RecursionError:
            raise ModelGarbage("the model server's stream holds a delta that is nested too deeply") from None

    def _take_in(self, chunk: Chunk) -> None:
        for choice in chunk.choices:
            delta = choice.delta
            message = self._messages.get(choice.index)
            if (
                len(delta) == 1
                and choice.logprobs is None
                and message
                and isinstance(text := delta.get("content"), str)
                and isinstance(said := message.get("content"), str)
                and said
            ):  # the usual piece, by the shortest way
                message["content"] = said + text
                if text and choice.index == 0:
                    self._counted.content(len(text))
            else:
                self._say(choice)
            if choice.finish_reason:
                self._finish[choice.index] = choice.finish_reason
        if chunk.usage != NULL:
            self.usage = bytes(chunk.usage)
        self.model = chunk.model or self.model
        if chunk.without_thoughts:
            self._without_thoughts = True
        if chunk.system_fingerprint:
            self._said["system_fingerprint"] = chunk.system_fingerprint
        if chunk.service_tier:
            self._said["service_tier"] = chunk.service_tier
        if chunk.moderation:
            self._said["moderation"] = chunk.moderation

    def _say(self, choice: Choice) -> None:
        index = choice.index
        choice.delta = delta = tidy(choice.delta, self._places.setdefault(index, {}))
        choice.logprobs = logprobs = tidy_logprobs(choice.logprobs)
        message = self._messages.setdefault(index, {"role": "assistant"})
        for name in delta.keys() & message.keys() - {"role"}:
            if delta[name] and not message[name]:
                del message[name]  # announced empty, and only now said
        merge(message, delta)
        if logprobs:
            merge(self._logprobs.setdefault(index, {}), logprobs)
        if index == 0:
            self._counted.add(delta, logprobs)

    @property
    def pieces(self) -> Pieces:
        """The pieces of the first choice."""
        return self._counted.pieces

    @property
    def logprobs(self) -> bytes:
        """The log probabilities of the first choice, as JSON beside an answer; empty where there are none."""
        return _encode({"logprobs": self._logprobs[0]}) if 0 in self._logprobs else b""

    @property
    def is_finished(self) -> bool:
        """Whether every choice that has begun has its finish reason."""
        return bool(self._messages) and self._messages.keys() == self._finish.keys()

    def partial(self) -> tuple[bytes, ...]:
        """The first choice as far as it came; nothing where nothing was said."""
        message = self._messages.get(0)
        return (_encode(_whole(message)),) if message and _any_said(message) else ()

    def answer(self) -> Answer:
        """The whole answer; raises `ModelBroke` where it ended without a finish reason."""
        if not self.is_finished:
            raise ModelBroke("the model server ended its answer in the middle")
        indexes = sorted(self._messages)
        message, *others = (_encode(_whole(self._messages[index])) for index in indexes)
        logprobs = {"logprobs": self._logprobs.get(indexes[0])} if self._logprobs else {}
        extra: dict[str, Any] = logprobs | self._said
        if others:
            extra["choices"] = [
                {"finish_reason": self._finish[index], "logprobs": self._logprobs.get(index)} for index in indexes[1:]
            ]
        return Answer(
            message=message,
            finish_reason=self._finish[min(self._finish)],
            usage=self.usage,
            model=self.model,
            alternatives=tuple(others),
            extra=_encode(extra) if extra else b"",
            without_thoughts=self._without_thoughts,
        )


def _any_said(message: dict[str, Any]) -> bool:
    return any(value for key, value in message.items() if key != "role")


def _whole(message: dict[str, Any]) -> dict[str, Any]:
    """The message as it would have come in one piece: tool calls are counted by their place, not by an `index`.

    Its fields stand in the order in which something was first said in them.
    """
    if calls := message.get("tool_calls"):
        bare = [{key: value for key, value in call.items() if key != "index"} for call in calls]
        message = message | {"tool_calls": bare}
    return message if "content" in message else message | {"content": None}


def merge(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a delta to what came before it, field by field, as OpenAI's SDKs do: text grows, lists go by `index`."""
    for key, value in delta.items():
        known = whole.get(key)
        if known is None and isinstance(value, list):
            known = whole[key] = []  # two entries of one delta may be pieces of one thing
        if known is None or key in _WHOLE:
            whole[key] = _copy(value) if value is not None or key not in whole else known
        elif isinstance(value, str) and isinstance(known, str):
            whole[key] = known + value
        elif isinstance(value, dict) and isinstance(known, dict):
            merge(known, value)
        elif isinstance(value, list) and isinstance(known, list):
            _merge_list(known, value, by_index=key not in LISTS)


def _merge_list(known: list[Any], pieces: list[Any], *, by_index: bool) -> None:
    for piece in pieces:
        index = piece.get("index") if by_index and isinstance(piece, dict) else None
        twin = next((entry for entry in known if isinstance(index, int) and _index_of(entry) == index), None)
        if twin is None:
            known.append(_copy(piece))
        else:
            merge(twin, piece)


def _index_of(entry: Any) -> Any:
    return entry.get("index") if isinstance(entry, dict) else None


def _copy(value: Any) -> Any:
    """Own what will grow: chunks are passed on to the client and must not change under it."""
    if isinstance(value, dict):
        return {key: _copy(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_copy(entry) for entry in value]
    return value
