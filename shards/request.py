"""What the engine is asked and what it answers. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from shards.errors import RequestError
from shards.grid import Grid

SEED_LIMIT = 2**63
TOP_LOGPROBS_LIMIT = 20


class FinishReason(StrEnum):
    """Why a choice ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    The draw is Gumbel-max with noise hashed from (seed, choice, output index, vocabulary id), so
    it depends on neither batch, rank count nor restarts.

    Attributes:
        seed: 0 <= seed < 2**63, drawn once by the caller when the user gave none.
        max_tokens: most tokens generated per choice.
        min_tokens: end-of-sequence and stop tokens are forbidden before this many tokens.
        temperature: 0 is greedy.
        top_k: 0 keeps all.
        logprobs: None for none, else how many alternatives (0..20) beside the chosen token's;
            taken from the model's distribution before penalties and temperature.
        logit_bias: pairs (token id, added to its logit).

    Raises:
        RequestError: naming the field at fault.
    """

    seed: int
    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    n: int = 1

    def __post_init__(self) -> None:
        _between("seed", self.seed, 0, SEED_LIMIT - 1)
        _between("max_tokens", self.max_tokens, 1, None)
        _between("min_tokens", self.min_tokens, 0, self.max_tokens)
        _between("temperature", self.temperature, 0, 2)
        _between("top_p", self.top_p, 0, 1)
        if self.top_p == 0:
            raise RequestError("top_p", "must be above 0 and at most 1, not 0")
        _between("top_k", self.top_k, 0, None)
        _between("min_p", self.min_p, 0, 1)
        _between("repetition_penalty", self.repetition_penalty, 0.01, 10)
        _between("presence_penalty", self.presence_penalty, -2, 2)
        _between("frequency_penalty", self.frequency_penalty, -2, 2)
        _between("n", self.n, 1, None)
        if self.logprobs is not None:
            _between("top_logprobs", self.logprobs, 0, TOP_LOGPROBS_LIMIT)
        if any(not text for text in self.stop):
            raise RequestError("stop", "a stop string must not be empty")
        for token_id, bias in self.logit_bias:
            if token_id < 0:
                raise RequestError("logit_bias", f"token id {token_id} is negative")
            _between("logit_bias", bias, -100, 100)

    @property
    def penalised(self) -> bool:
        """Whether a draw depends on what was drawn before."""
        penalties = (self.presence_penalty, self.frequency_penalty)
        return self.repetition_penalty != 1 or penalties != (0, 0)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in a prompt: its grid and a hash of its content (hex)."""

    grid: Grid
    content: str


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose request it is, as far as the engine's fairness and caches go.

    Attributes:
        team: shares the batch with other teams by weight.
        weight: of the team's part of the tokens while several teams want more than there is.
        cache_salt: prompts share cached prefixes only under the same salt.
    """

    team: str = ""
    weight: float = 1.0
    cache_salt: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise RequestError("weight", f"must be above 0, not {self.weight}")


@dataclass(frozen=True, slots=True)
class TextRules:
    """The answer's text is JSON.

    Attributes:
        schema: what it conforms to, a JSON schema as JSON text; None for any object.
        closed: objects that name their properties have no others, unless the schema says so.
        param: the field that holds the schema, as the caller spells it.
    """

    schema: str | None = None
    closed: bool = False
    param: str = "response_format"


@dataclass(frozen=True, slots=True)
class CallableTool:
    """A function that may be called.

    Attributes:
        schema: what its arguments conform to, a JSON schema as JSON text; None for any object.
        param: the field that holds the schema, as the caller spells it.
    """

    name: str
    schema: str | None = None
    param: str = "tools"


@dataclass(frozen=True, slots=True)
class CallRules:
    """What follows [TOOL_CALLS] is a JSON list of calls, and then the answer ends.

    Attributes:
        required: the answer begins with [TOOL_CALLS].
        parallel: there may be several calls.
    """

    tools: tuple[CallableTool, ...]
    required: bool = False
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """What an answer must conform to, before it is compiled (see grammar.py).

    Attributes:
        text: None leaves the text free.
        calls: None where there are none to be made.
        prefix: text that the answer continues; the two together conform.
    """

    text: TextRules | None = None
    calls: CallRules | None = None
    prefix: str = ""

    @property
    def has_schema(self) -> bool:
        """Whether any of it is a caller's schema, which may take long to compile."""
        return (self.text is not None and self.text.schema is not None) or (
            self.calls is not None and any(tool.schema is not None for tool in self.calls.tools)
        )


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request to the engine.

    The prompt holds one [IMG] id per patch of ``pictures``, in order; the features themselves are
    handed over beside the request. ``attempt`` counts from 1 when it is sent again elsewhere.
    Among waiting requests a higher ``priority`` goes first, whatever the teams' shares, and who has
    it is put back last; but who waits rises in time, so that none starves (waiting_room.py).
    """

    request_id: str
    prompt: tuple[int, ...]
    sampling: Sampling
    pictures: tuple[Picture, ...] = ()
    attempt: int = 1
    tenant: Tenant = Tenant()
    priority: int = 0
    grammar: GrammarSpec | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of a token and of the likeliest alternatives, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """When what happened to a request, on the engine's clock (s); None for what did not.

    Attributes:
        arrived: it was taken in.
        started: the first step that computed it began.
        first_token, last_token: of any of its choices, drawn.
    """

    arrived: float
    started: float | None = None
    first_token: float | None = None
    last_token: float | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """New tokens of one choice.

    Attributes:
        token_ids: generated since the last delta; the token that ended the choice (end of
            sequence, stop token, last token of a stop string) is included.
        finish_reason: None while the choice goes on.
        prompt_tokens: computed so far or found in the prefix cache, for all choices together; all
            of them once a token came.
        completion_tokens: of this choice so far.
        stop: the stop string, or the id of the stop token, that ended the choice.
        image_tokens: of ``prompt_tokens``, those that stand for pictures.
        cached_tokens: of ``prompt_tokens``, those found in the prefix cache.
        cached_image_tokens: of ``image_tokens``, those found in the prefix cache.
        attempt: which try at the request this is (see ``GenerationRequest``).
        timing: with a finish reason, the request's until then.
    """

    request_id: str
    choice: int
    token_ids: tuple[int, ...]
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    stop: str | int | None = None
    image_tokens: int = 0
    cached_tokens: int = 0
    cached_image_tokens: int = 0
    attempt: int = 1
    timing: Timing | None = field(default=None, compare=False)


def never_begun(request: GenerationRequest) -> tuple[Delta, ...]:
    """How the choices of a request end that was aborted before anything was computed for it."""
    return tuple(
        Delta(
            request.request_id,
            choice,
            (),
            prompt_tokens=0,
            completion_tokens=0,
            finish_reason=FinishReason.ABORT,
            attempt=request.attempt,
        )
        for choice in range(request.sampling.n)
    )


def _between(param: str, value: float, low: float, high: float | None) -> None:
    if math.isnan(value) or value < low or (high is not None and value > high):
        allowed = f"at least {low}" if high is None else f"between {low} and {high}"
        raise RequestError(param, f"must be {allowed}, not {value}")
