"""One chat request, from parsed body to what the tiers are asked. Knows nothing of HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.accounting.hold import HoldRequest
from serve_app.accounting.money import CURRENCY, format_usd
from serve_app.accounting.prices import PriceSheet
from serve_app.accounting.principal import Principal
from serve_app.accounting.replays import Repeat
from serve_app.accounting.tokens import Tokens
from serve_app.config import Config
from serve_app.gateway.answer_rules import grammar_of
from serve_app.gateway.chat_body import ChatBody
from serve_app.gateway.choice import Finish, ReadingRules
from serve_app.gateway.fields import Dialect
from serve_app.gateway.mistral_answer import MistralAnswer
from serve_app.gateway.model_card import check_model
from serve_app.gateway.openai_answer import OpenAIAnswer
from serve_app.gateway.picture_body import picture_body
from serve_app.gateway.pictures import PictureRules
from serve_app.gateway.question import Question, question_of
from serve_app.gateway.sampling import asked_max_tokens, sampling_of, with_room
from serve_app.gateway.scribe import BodyScribe, EventScribe, Scribe
from serve_app.gateway.tiers import Tiers
from serve_app.in_hand import InHand
from serve_app.messages import PrepareRequest, Prompt, Trail
from shards.detokenizer import Vocabulary
from shards.request import GenerationRequest, GrammarSpec, Sampling, Tenant


@dataclass(frozen=True, slots=True)
class Asked:
    """A request found fit to be worked on; ``repeat`` where it came with an Idempotency-Key."""

    request_id: str
    principal: Principal
    dialect: Dialect
    body: ChatBody
    question: Question
    sampling: Sampling
    max_pictures: int
    grammar: GrammarSpec | None = None
    repeat: Repeat | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    config: Config
    tiers: Tiers
    vocabulary: Vocabulary
    max_context_tokens: int
    patch_room: InHand

    def check(
        self, request_id: str, principal: Principal, dialect: Dialect, body: ChatBody
    ) -> Asked:
        """Everything that can be refused before any tier works.

        Raises:
            ApiError, RequestError: naming the field.
        """
        model, gateway = self.config.model, self.config.gateway
        check_model(body.model, model)
        principal.check_model(model.name)
        sampling = sampling_of(
            body, model, gateway.max_choices, len(self.vocabulary), self.vocabulary.tool_calls_id
        )
        most = gateway.max_pictures
        if principal.max_pictures is not None:
            most = min(most, principal.max_pictures)
        question = question_of(body, most, PictureRules.of(self.config.preprocess))
        grammar = grammar_of(body, question.prefix)
        return Asked(request_id, principal, dialect, body, question, sampling, most, grammar)

    async def prompt(self, asked: Asked) -> Prompt:
        """Tokens and pictures, prepared."""
        question = asked.question
        request = PrepareRequest(
            asked.request_id,
            question.conversation,
            question.pictures,
            asked.max_pictures,
            self.max_context_tokens - (asked_max_tokens(asked.body) or 1),
            Trail(asked.principal.team_name),
            self._tenant(asked.principal).cache_salt,
        )
        return await self.tiers.prepare(request)

    def generation_request(self, asked: Asked, prompt: Prompt) -> GenerationRequest:
        """Raises InvalidRequest: the answer does not fit behind the prompt."""
        return GenerationRequest(
            request_id=asked.request_id,
            prompt=prompt.token_ids,
            sampling=self._fitted(asked, prompt),
            pictures=tuple(patches.picture for patches in prompt.patches),
            tenant=self._tenant(asked.principal),
            grammar=asked.grammar,
        )

    def hold_request(
        self, asked: Asked, prompt: Prompt, sampling: Sampling, prices: PriceSheet
    ) -> HoldRequest:
        """The most that the request can cost."""
        return HoldRequest(
            request_id=asked.request_id,
            payer=asked.principal.payer,
            prices=prices,
            tokens=_prompt_tokens(prompt),
            max_output_tokens=sampling.max_tokens * sampling.n,
            pictures=len(prompt.patches),
        )

    def reading_rules(self, asked: Asked, prompt: Prompt, sampling: Sampling) -> ReadingRules:
        at_limit = Finish.LENGTH
        room = self.max_context_tokens - len(prompt.token_ids)
        if asked_max_tokens(asked.body) is None and sampling.max_tokens == room:
            at_limit = Finish.MODEL_LENGTH
        return ReadingRules(
            asked.request_id,
            self.vocabulary,
            stop=sampling.stop,
            prefix=asked.question.prefix,
            offers_tools=bool(asked.question.conversation.tools),
            at_limit=at_limit,
            # Mistral's client does not put the deltas of a call together.
            whole_calls=asked.dialect is Dialect.MISTRAL,
        )

    def scribe(self, asked: Asked, prompt: Prompt, prices: PriceSheet, created: int) -> Scribe:
        """Writes the answer as the caller's client expects it; ``created``: Unix time, s."""
        shape = MistralAnswer if asked.dialect is Dialect.MISTRAL else OpenAIAnswer
        options = asked.body.stream_options
        answer = shape(
            request_id=asked.request_id,
            created=created,
            model=self.config.model.name,
            prices=prices,
            vocabulary=self.vocabulary,
            pictures=prompt.shown,
            logprobs=asked.body.logprobs,
            include_usage=bool(options and options.include_usage),
        )
        return EventScribe(answer, asked.body.n) if asked.body.stream else BodyScribe(answer)

    def quote(self, asked: Asked, prompt: Prompt, prices: PriceSheet) -> dict[str, object]:
        """Exact prompt tokens, and what the request costs at most: what would be held for it."""
        sampling = self._fitted(asked, prompt)
        most = sampling.max_tokens * sampling.n
        given, answered = prices.most(_prompt_tokens(prompt)), prices.most(Tokens(output=most))
        return {
            "object": "tokenization",
            "model": self.config.model.name,
            "prompt_tokens": len(prompt.token_ids),
            "text_tokens": prompt.text_tokens,
            "image_tokens": prompt.image_tokens,
            "pictures": [picture_body(shown) for shown in prompt.shown],
            "max_completion_tokens": most,
            "max_context_tokens": self.max_context_tokens,
            "quote": {
                "currency": CURRENCY,
                "input": format_usd(given),
                "max_output": format_usd(answered),
                "max_total": format_usd(given + answered),
            },
        }

    def _tenant(self, principal: Principal) -> Tenant:
        """Teams are told apart by their ids: names can be changed. Nobody has a ``priority`` over
        others; shares are what weights are for."""
        team = str(principal.payer.team_id)
        shared = self.config.decoder.prefix_cache == "shared"
        return Tenant(team, principal.weight, cache_salt="" if shared else team)

    def _fitted(self, asked: Asked, prompt: Prompt) -> Sampling:
        return with_room(asked.sampling, asked.body, len(prompt.token_ids), self.max_context_tokens)


def _prompt_tokens(prompt: Prompt) -> Tokens:
    """None of them cached, as far as is known before they are computed."""
    return Tokens(text=prompt.text_tokens, image=prompt.image_tokens)
