"""What a response holds, in the words of the chat API: pure translations of its parts."""

from typing import Any

from api.models.model import ModelRefused
from api.models.refused import refusal

# What a failed response says that is not the server's own fault, by its code.
_BUSY_CODES = frozenset({"rate_limit_exceeded", "insufficient_quota"})
_ASKED_AMISS = frozenset(
    {
        *("context_length_exceeded", "invalid_prompt", "bio_policy", "misalignment_policy_violation"),
        *("data_residency_mismatch", "image_too_large", "image_too_small", "image_parse_error", "empty_image_file"),
        *("image_content_policy_violation", "image_file_too_large", "image_file_not_found"),
        *("unsupported_image_media_type", "failed_to_download_image", "invalid_image", "invalid_image_format"),
        *("invalid_base64_image", "invalid_image_url", "invalid_image_mode"),
    }
)
_USAGE = {
    "input_tokens_details": "prompt_tokens_details",
    "output_tokens_details": "completion_tokens_details",
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
}


def failure(error: object) -> ModelRefused:
    """The error of a response that failed, or of an error event."""
    code = error.get("code") if isinstance(error, dict) else None
    if code in _BUSY_CODES:
        return refusal(429, error)
    return refusal(400 if code in _ASKED_AMISS else 502, error)


def finish_reason(status: Any, details: Any, *, has_calls: bool) -> str:
    """Why the model stopped, as a chat says it."""
    if status == "incomplete":
        reason = details.get("reason") if isinstance(details, dict) else None
        return "content_filter" if reason == "content_filter" else "length"
    return "tool_calls" if has_calls else "stop"


def usage_of(usage: Any) -> dict[str, Any]:
    """A usage object by its chat names; empty where there is none."""
    said: dict[str, Any] = usage if isinstance(usage, dict) else {}
    return {_USAGE.get(name, name): value for name, value in said.items()}


def logprobs_of(logprobs: Any) -> dict[str, Any] | None:
    """The log probabilities of a text; None where there are none."""
    entries = objects(logprobs)
    return {"content": entries, "refusal": None} if entries else None


def annotation_of(annotation: Any, begins: int) -> dict[str, Any] | None:
    """An annotation of a text that `begins` so many characters into the message. Citations of pages are nested in a
    chat; of the other kinds it has none, and they stay as they are.
    """
    if not isinstance(annotation, dict):
        return None
    moved = {
        name: value + begins if name in ("start_index", "end_index") and isinstance(value, int) else value
        for name, value in annotation.items()
    }
    if moved.get("type") != "url_citation" or "url_citation" in moved:
        return moved
    del moved["type"]
    return {"type": "url_citation", "url_citation": moved}


def texts_in(parts: Any) -> list[str]:
    """The texts of a list of parts."""
    return [text for part in objects(parts) if isinstance(text := part.get("text"), str) and text]


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none where it is no list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
