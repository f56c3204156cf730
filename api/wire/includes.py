"""What a client may ask to be included in an answer, by OpenAI's names."""

from collections.abc import Iterable

from multidict import MultiMapping

from api.problem import Problem
from api.wire.query import Parameter

# None of them changes what is stored or shown: what concerns hosted tools never occurs here, and the others are always
# shown where the model server gives them. The first makes the model server give log probabilities.
LOGPROBS = "message.output_text.logprobs"
KNOWN = (
    LOGPROBS,
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)
INCLUDE = Parameter("include[]", "What is to be included.", {"type": "array", "items": {"enum": list(KNOWN)}})


def check_include(asked: Iterable[str]) -> None:
    """Refuse what nobody knows; raises `Problem`."""
    for name in asked:
        if name not in KNOWN:
            raise Problem(
                f"'{name}' can not be included; known are {', '.join(KNOWN)}.", param="include", code="invalid_value"
            )


def check_included(query: MultiMapping[str]) -> None:
    """The same for a query, by either name that SDKs have for it; raises `Problem`."""
    check_include([*query.getall("include", ()), *query.getall("include[]", ())])
