"""From a conversation to token ids, by mistral-common; needs picture sizes, never pixels.

tokenizer = Tokenizer.from_folder(folder)
prompt = tokenizer.encode(conversation, sizes=[(1920, 1080)])
stream = TextStream(tokenizer.vocabulary)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.chunk import ImageChunk, ImageURLChunk
from mistral_common.protocol.instruct.messages import (
    AssistantMessage,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import SpecialTokens, Tokenized
from mistral_common.tokens.tokenizers.base import Tokenizer as RawTokenizer
from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, ImageEncoding
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.sentencepiece import is_sentencepiece
from mistral_common.tokens.tokenizers.tekken import Tekkenizer, is_tekken

from shards.config import ModelConfig
from shards.conversation import Conversation, Image
from shards.detokenizer import Vocabulary
from shards.errors import ModelConfigError, RequestError
from shards.grid import Grid, Size, patch_grid
from shards.mistral_request import mistral_request, picture_of, refusal

Family = Literal["sentencepiece", "tekken"]

_Mistral = MistralTokenizer[UserMessage, AssistantMessage, ToolMessage, SystemMessage, Tokenized]

# All that mistral-common raises for a conversation; RecursionError from its reading of tool JSON.
_REFUSALS = (MistralCommonException, ValueError, RecursionError)
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A tokenised conversation.

    Attributes:
        text_tokens, image_tokens: together ``len(token_ids)``; a picture's row breaks and end
            count as image tokens.
        grids: of the pictures in the order in which the prompt shows them.
        picture_order: the index, among the request's pictures, of each grid. Not always reading
            order: a user turn of texts ending in one picture is shown picture first.
    """

    token_ids: tuple[int, ...]
    text_tokens: int
    image_tokens: int
    grids: tuple[Grid, ...]
    picture_order: tuple[int, ...]


class Tokenizer:
    """One model's tokenizer and prompt format. May be shared by threads."""

    def __init__(self, file: Path) -> None:
        """Raises ModelConfigError: ``file`` is no tokenizer of a model that sees."""
        try:
            self._mistral: _Mistral = MistralTokenizer.from_file(file, ValidationMode.serving)
        except (*_REFUSALS, AssertionError, KeyError, OSError, RuntimeError) as error:
            raise ModelConfigError(f"{file} is no readable tokenizer: {error}") from error
        instruct = self._mistral.instruct_tokenizer
        encoder = instruct.image_encoder
        if encoder is None or encoder.image_config.spatial_merge_size != 1:
            raise ModelConfigError(f"{file} is not the tokenizer of a Pixtral: no picture settings")
        instruct.image_encoder = _PictureLayout(encoder.image_config, encoder.special_ids)
        self._picture = encoder.image_config
        self._validator = get_validator(instruct.tokenizer.version, ValidationMode.serving)
        self.family: Family = (
            "tekken" if isinstance(instruct.tokenizer, Tekkenizer) else "sentencepiece"
        )
        self.vocabulary = vocabulary_of(instruct.tokenizer)

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """The tokenizer beside a checkpoint.

        Raises:
            ModelConfigError: none, several or an unusable one; names the files.
        """
        return cls(find_tokenizer(folder))

    @property
    def max_side(self) -> int:
        """Pixels that pictures are scaled to, at the most."""
        side: int = self._picture.max_image_size
        return side

    def require_model(self, config: ModelConfig) -> None:
        """Refuse to serve a model by another model's tokenizer.

        Raises:
            ModelConfigError: they differ in their number of ids or in which one is [IMG].
        """
        ids, image = len(self.vocabulary), self.vocabulary.image_id
        if (ids, image) != (config.text.vocab_size, config.image_token_id):
            raise ModelConfigError(
                f"the tokenizer has {ids} ids with [IMG] at {image}, the model "
                f"{config.text.vocab_size} with [IMG] at {config.image_token_id}"
            )

    def check(self, conversation: Conversation, pictures: int) -> None:
        """Refuse what can be refused before a picture is decoded or a word is tokenised.

        Args:
            pictures: how many came with the conversation.

        Raises:
            RequestError: naming ``messages`` or ``tools``, the place and the rule.
        """
        _check_pictures(conversation, pictures)
        request = mistral_request(conversation, [(1, 1)] * pictures)
        try:
            self._validator.validate_request(request)
        except _REFUSALS as error:
            raise refusal(conversation, error) from error

    def encode(self, conversation: Conversation, sizes: Sequence[Size]) -> EncodedPrompt:
        """Token ids exactly as mistral-common gives them for pictures of these sizes.

        Args:
            sizes: width and height of each of the request's pictures, in pixels.

        Raises:
            RequestError: naming ``messages`` or ``tools``, the place and the rule.
        """
        _check_pictures(conversation, len(sizes))
        request = mistral_request(conversation, sizes)
        try:
            tokenized = self._mistral.encode_chat_completion(request)
        except _REFUSALS as error:
            raise refusal(conversation, error) from error
        order = tuple(int(index) for index in tokenized.images)
        grids = tuple(_grid(self._picture, sizes[index]) for index in order)
        image_tokens = sum(grid.tokens for grid in grids)
        return EncodedPrompt(
            token_ids=tuple(tokenized.tokens),
            text_tokens=len(tokenized.tokens) - image_tokens,
            image_tokens=image_tokens,
            grids=grids,
            picture_order=order,
        )


class _PictureLayout(ImageEncoder):
    """Lays out a picture's tokens from its size; in place of pixels it returns the index."""

    def __call__(self, content: ImageChunk | ImageURLChunk) -> ImageEncoding:
        if not isinstance(content, ImageURLChunk):
            raise TypeError("pictures are named by URL, not carried")
        index, size = picture_of(content.get_url())
        ids = self.special_ids
        tokens = _grid(self.image_config, size).token_ids(ids.img, ids.img_break, ids.img_end)
        return ImageEncoding(tokens=tokens, image=np.array(index))


def find_tokenizer(folder: Path) -> Path:
    """The one file in ``folder`` that holds the tokenizer of a model that sees.

    SentencePiece files say so by their name alone: ``….model.v7`` and ``….model.v7m1`` are the
    same bytes, and only the latter is read with pictures.

    Raises:
        ModelConfigError: none or several; says which file to add.
    """
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise ModelConfigError(f"{folder} cannot be read: {error.strerror}") from error
    sentencepiece = [file for file in files if is_sentencepiece(file)]
    usable = [file for file in sentencepiece if "m" in file.suffix.removeprefix(".model")]
    usable += [file for file in files if is_tekken(file)]
    if len(usable) == 1:
        return usable[0]
    if usable:
        names = ", ".join(file.name for file in usable)
        raise ModelConfigError(f"{folder} holds several tokenizers ({names}); keep one")
    if sentencepiece:
        raise ModelConfigError(
            f"{folder}/{sentencepiece[0].name} is read without pictures because of its name; if it"
            " is Pixtral Large's, name it tokenizer.model.v7m1"
        )
    raise ModelConfigError(
        f"{folder} holds no tokenizer that mistral-common reads (tokenizer.json is not enough): add"
        " tekken.json (Pixtral 12B) or tokenizer.model.v7m1 (Pixtral Large) from the original model"
    )


def vocabulary_of(tokenizer: RawTokenizer) -> Vocabulary:
    """What the detokenizer needs of ``tokenizer``."""
    control_ids = frozenset(tokenizer.special_ids | {tokenizer.unk_id})
    if isinstance(tokenizer, Tekkenizer):
        pieces = tuple(map(tokenizer.id_to_byte_piece, range(tokenizer.n_words)))
        byte_ids: frozenset[int] = frozenset()
    else:
        names = tokenizer.vocab()
        pieces = tuple(
            b"" if token_id in control_ids else _sentencepiece_bytes(name)
            for token_id, name in enumerate(names)
        )
        byte_ids = frozenset(i for i, name in enumerate(names) if _BYTE.fullmatch(name))
    special = tokenizer.get_special_token
    eos_id, tool_calls_id = tokenizer.eos_id, special(SpecialTokens.tool_calls.value)
    return Vocabulary(
        pieces=pieces,
        eos_id=eos_id,
        control_ids=control_ids,
        answer_ids=frozenset({eos_id, tool_calls_id}),
        tool_calls_id=tool_calls_id,
        image_id=special(SpecialTokens.img.value),
        image_break_id=special(SpecialTokens.img_break.value),
        image_end_id=special(SpecialTokens.img_end.value),
        strip_leading_space=bool(byte_ids),
        byte_ids=byte_ids,
    )


def _sentencepiece_bytes(piece: str) -> bytes:
    byte = _BYTE.fullmatch(piece)
    return bytes.fromhex(byte[1]) if byte else piece.replace("▁", " ").encode()


def _grid(config: ImageConfig, size: Size) -> Grid:
    return patch_grid(*size, max_side=config.max_image_size, patch=config.image_patch_size)


def _check_pictures(conversation: Conversation, pictures: int) -> None:
    """Every picture that came is shown, and every picture that is shown came."""
    named = {
        part.index
        for message in conversation.messages
        for part in message.content
        if isinstance(part, Image)
    }
    if named != set(range(pictures)):
        raise RequestError(
            "messages", f"{len(named)} pictures are named but {pictures} came with the request"
        )
