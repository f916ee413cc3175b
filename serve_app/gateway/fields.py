"""Every top-level field of a chat request, and what becomes of it.

The table knows each field of the pinned ``openai`` and ``mistralai`` clients' request types (a test
reads them) and the vendor extensions. Nothing is dropped in silence: a field is ignored only where
it cannot change the answer, and refused by name where we cannot do what it asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Dialect(StrEnum):
    """Whose request and answer shapes a route speaks. OpenAI's also takes Mistral's fields."""

    OPENAI = "openai"
    MISTRAL = "mistral"


class Treatment(StrEnum):
    HONOURED = "honoured"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Field:
    """One row.

    Attributes:
        spoken_by: the dialects whose own request type has the field; empty for our extensions,
            which both take.
        why: for ignored fields why that is harmless, for refused ones what the caller is told.
        neutral: values of a refused field that ask for nothing and so pass (null always does).
    """

    treatment: Treatment
    spoken_by: frozenset[Dialect]
    why: str = ""
    neutral: tuple[Any, ...] = ()

    def accepts_in(self, dialect: Dialect) -> bool:
        return dialect is Dialect.OPENAI or not self.spoken_by or dialect in self.spoken_by


_BOTH = frozenset(Dialect)
_OPENAI = frozenset({Dialect.OPENAI})
_MISTRAL = frozenset({Dialect.MISTRAL})
_OURS: frozenset[Dialect] = frozenset()


def _honoured(spoken_by: frozenset[Dialect]) -> Field:
    return Field(Treatment.HONOURED, spoken_by)


def _ignored(spoken_by: frozenset[Dialect], why: str) -> Field:
    return Field(Treatment.IGNORED, spoken_by, why)


def _refused(spoken_by: frozenset[Dialect], why: str, *neutral: Any) -> Field:
    return Field(Treatment.REFUSED, spoken_by, why, neutral)


FIELDS: Mapping[str, Field] = {
    "model": _honoured(_BOTH),
    "messages": _honoured(_BOTH),
    "temperature": _honoured(_BOTH),
    "top_p": _honoured(_BOTH),
    "max_tokens": _honoured(_BOTH),
    "max_completion_tokens": _honoured(_OPENAI),
    "stream": _honoured(_BOTH),
    "stream_options": _honoured(_OPENAI),
    "stop": _honoured(_BOTH),
    "seed": _honoured(_OPENAI),
    "random_seed": _honoured(_MISTRAL),
    "presence_penalty": _honoured(_BOTH),
    "frequency_penalty": _honoured(_BOTH),
    "repetition_penalty": _honoured(_MISTRAL),
    "logit_bias": _honoured(_OPENAI),
    "logprobs": _honoured(_BOTH),
    "top_logprobs": _honoured(_BOTH),
    "n": _honoured(_BOTH),
    "tools": _honoured(_BOTH),
    "tool_choice": _honoured(_BOTH),
    "parallel_tool_calls": _honoured(_BOTH),
    "response_format": _honoured(_BOTH),
    "top_k": _honoured(_MISTRAL),
    "min_tokens": _honoured(_MISTRAL),
    "min_p": _honoured(_OURS),
    "ignore_eos": _honoured(_OURS),
    "metadata": _ignored(_BOTH, "labels stored completions, and none are stored"),
    "prediction": _ignored(_BOTH, "a hint for speed that never changes the answer"),
    "prompt_cache_key": _ignored(_BOTH, "a hint for caching"),
    "prompt_cache_options": _ignored(_OPENAI, "a hint for caching"),
    "prompt_cache_retention": _ignored(_OPENAI, "a hint for caching"),
    "safety_identifier": _ignored(_OPENAI, "names the end user to an abuse monitor"),
    "user": _ignored(_OPENAI, "names the end user to an abuse monitor"),
    "audio": _refused(_OPENAI, "the model neither hears nor speaks"),
    "function_call": _refused(_OPENAI, "deprecated; use tool_choice"),
    "functions": _refused(_OPENAI, "deprecated; use tools"),
    "guardrails": _refused(_MISTRAL, "no moderation service runs here", []),
    "modalities": _refused(_OPENAI, "answers are text", ["text"]),
    "moderation": _refused(_OPENAI, "no moderation service runs here"),
    "prompt_logprobs": _refused(_MISTRAL, "prompt tokens are not scored", False),
    "top_prompt_logprobs": _refused(_MISTRAL, "prompt tokens are not scored", 0),
    "prompt_mode": _refused(_MISTRAL, "the model has no reasoning mode"),
    "reasoning_effort": _refused(_BOTH, "the model has no reasoning mode", "none"),
    "safe_prompt": _refused(_MISTRAL, "no safety prompt is injected; write a system one", False),
    "service_tier": _refused(_BOTH, "there is one tier", "auto", "default", "standard_only"),
    "store": _refused(_OPENAI, "completions are not stored", False),
    "verbosity": _refused(_OPENAI, "the model has no such control; ask for it in words", "medium"),
    "web_search_options": _refused(_OPENAI, "the model does not search the web"),
}
