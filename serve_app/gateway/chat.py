"""One chat request, from parsed body to running answer. Knows nothing of HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.accounting.cost import cost_of
from serve_app.accounting.money import CURRENCY, format_usd
from serve_app.accounting.prices import ListedPrice
from serve_app.config import Config
from serve_app.errors import ApiError, api_error
from serve_app.gateway.chat_body import ChatBody
from serve_app.gateway.choice import Finish, ReadingRules
from serve_app.gateway.generation import Generation
from serve_app.gateway.model_card import check_model
from serve_app.gateway.question import Question, question_of
from serve_app.gateway.sampling import asked_max_tokens, sampling_of, with_room
from serve_app.gateway.tiers import Tiers
from serve_app.messages import PrepareRequest, Prompt
from shards.detokenizer import Vocabulary
from shards.errors import RequestError
from shards.request import GenerationRequest, Sampling


@dataclass(frozen=True, slots=True)
class Asked:
    """A request found fit to be worked on."""

    request_id: str
    body: ChatBody
    question: Question
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Chat:
    config: Config
    tiers: Tiers
    vocabulary: Vocabulary
    max_context_tokens: int
    listed_price: ListedPrice

    def check(self, request_id: str, body: ChatBody) -> Asked:
        """Everything that can be refused before any tier works.

        Raises:
            ApiError, RequestError: naming the field.
        """
        model, gateway = self.config.model, self.config.gateway
        check_model(body.model, model)
        sampling = sampling_of(
            body, model, gateway.max_choices, len(self.vocabulary), self.vocabulary.tool_calls_id
        )
        max_bytes = self.config.preprocess.max_picture_bytes
        return Asked(request_id, body, question_of(body, gateway.max_pictures, max_bytes), sampling)

    async def prompt(self, asked: Asked) -> Prompt:
        """Tokens and pictures, prepared. Errors name a picture by its place in the body."""
        question = asked.question
        request = PrepareRequest(
            asked.request_id,
            question.conversation,
            question.pictures,
            self.config.gateway.max_pictures,
        )
        try:
            return await self.tiers.prepare(request)
        except (ApiError, RequestError) as error:
            raise _as_placed(error, question.picture_params) from error

    async def generation(self, asked: Asked, prompt: Prompt) -> Generation:
        """The answer, begun: its first tokens are there, so early failures are raised here.

        Raises:
            ApiError, RequestError: refused or failed; the tiers' generator is closed.
        """
        sampling = self._fitted(asked, prompt)
        at_limit = Finish.LENGTH
        room = self.max_context_tokens - len(prompt.token_ids)
        if asked_max_tokens(asked.body) is None and sampling.max_tokens == room:
            at_limit = Finish.MODEL_LENGTH
        rules = ReadingRules(
            asked.request_id,
            self.vocabulary,
            stop=sampling.stop,
            prefix=asked.question.prefix,
            offers_tools=bool(asked.question.conversation.tools),
            at_limit=at_limit,
        )
        request = GenerationRequest(
            request_id=asked.request_id,
            prompt=prompt.token_ids,
            sampling=sampling,
            pictures=tuple(patches.picture for patches in prompt.patches),
        )
        generation = Generation(self.tiers.generate(request, prompt), prompt, rules, sampling.n)
        try:
            await generation.peek()
        except BaseException:
            await generation.close()
            raise
        return generation

    def quote(self, asked: Asked, prompt: Prompt) -> dict[str, object]:
        """Exact prompt tokens, and what the request costs at most."""
        sampling, price = self._fitted(asked, prompt), self.listed_price.price
        most = sampling.max_tokens * sampling.n
        cost = cost_of(price, len(prompt.token_ids), most)
        return {
            "object": "tokenization",
            "model": self.config.model.name,
            "prompt_tokens": len(prompt.token_ids),
            "text_tokens": prompt.text_tokens,
            "image_tokens": prompt.image_tokens,
            "max_completion_tokens": most,
            "max_context_tokens": self.max_context_tokens,
            "quote": {
                "currency": CURRENCY,
                "input": format_usd(cost.input_nano_usd),
                "max_output": format_usd(cost.output_nano_usd),
                "max_total": format_usd(cost.total_nano_usd),
            },
        }

    def _fitted(self, asked: Asked, prompt: Prompt) -> Sampling:
        return with_room(asked.sampling, asked.body, len(prompt.token_ids), self.max_context_tokens)


def _as_placed(error: ApiError | RequestError, picture_params: tuple[str, ...]) -> ApiError:
    """A picture's place as the body has it: the part that holds it becomes its ``image_url``."""
    fault = api_error(error)
    param = f"{fault.param}.image_url"
    if param not in picture_params:
        return fault
    return type(fault)(fault.message, param=param, code=fault.code)
