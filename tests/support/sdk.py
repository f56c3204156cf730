"""What the official SDK's own types say of objects that the server sends."""

from typing import Any

import pydantic
from openai.types.conversations import ConversationItem
from openai.types.responses import ResponseItem

_response_item: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseItem)
_conversation_item: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ConversationItem)


def check_item(item: dict[str, Any]) -> None:
    """Fail unless the item is one that a response and a conversation can list: no field lacks, none is of another
    type.
    """
    _response_item.validate_python(item)
    _conversation_item.validate_python(item)
