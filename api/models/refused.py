"""A model server's refusal, from whatever it says: OpenAI's envelope, another object, or plain text."""

import re

from api.models.model import ModelRefused

CHARACTERS_MAX = 2_000
UNKNOWN_MODEL = "model_not_found"

_CODE = re.compile(r"[\w.:/-]{1,64}", re.ASCII)  # what a model server calls an error is told in headers and logs too
# That there is no such model is said in many ways: by a code (OpenAI, LM Studio, Together, Mistral, Azure) ...
_UNKNOWN_CODES = frozenset({UNKNOWN_MODEL, "model_not_available", "invalid_model", "DeploymentNotFound"})
# ... by a 404 that speaks of a model, where one of a wrong path does not (vLLM, Ollama, Anthropic, Gemini) ...
_SPEAKS_OF_MODEL = re.compile(r"\bmodels?\b", re.IGNORECASE)
# ... or by a 400 in so many words (llama.cpp, LM Studio, DeepSeek, OpenRouter).
_SAYS_UNKNOWN = re.compile(
    r"\bmodel(\s+\S+){0,2}\s+((is|was|does|did)\s+)?not (found|exist)|\b(unknown|invalid) model\b|not a valid model",
    re.IGNORECASE,
)


def refusal(status: int, told: object, retry_after: str = "") -> ModelRefused:
    """What a model server `told` with that status, as our error."""
    error = told if isinstance(told, dict) else {"message": told}
    message = str(error.get("message") or error.get("detail") or told or "no reason given")[:CHARACTERS_MAX]
    code, param = error.get("code"), error.get("param")
    if _is_unknown_model(status, (code, error.get("type")), message):
        return ModelRefused(404, message, code=UNKNOWN_MODEL, param="model")
    if status == 404:
        message = f"the model server answered 404 (is its URL right, and the API it is asked by?): {message}"
    return ModelRefused(
        status,
        message,
        code=code if isinstance(code, str) and _CODE.fullmatch(code) else None,
        param=param if isinstance(param, str) else None,
        retry_after=retry_after,
    )


def _is_unknown_model(status: int, codes: tuple[object, ...], message: str) -> bool:
    if any(isinstance(code, str) and code in _UNKNOWN_CODES for code in codes):
        return True
    if status == 404:
        return bool(_SPEAKS_OF_MODEL.search(message))
    return status in (400, 422) and bool(_SAYS_UNKNOWN.search(message))
