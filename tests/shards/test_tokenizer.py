"""Prompts against unmodified mistral-common, which is given real pictures and asked for pixels."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from shards.conversation import Conversation, Image, Message, Text
from shards.detokenizer import TextStream
from shards.errors import ModelConfigError
from shards.tokenizer import Tokenizer
from tests.shards.conversations import DATA, FILES, SIZES, Draw, called, told_to_mistral, user

CONTROLS = ["[IMG]", "[IMG_BREAK]", "[IMG_END]", "</s>", "<s>", "[INST]", "[/INST]", "<unk>"]


@pytest.mark.parametrize("batch", range(5))
def test_random_conversations_give_mistral_commons_tokens(tokenizer, oracle, family, batch):
    """5 x 30 per family: 300 conversations."""
    for seed in range(batch * 30, batch * 30 + 30):
        draw = Draw(seed, family)
        conversation = draw.conversation()
        expected = oracle.encode_chat_completion(told_to_mistral(conversation, draw.sizes))

        tokenizer.check(conversation, len(draw.sizes))
        prompt = tokenizer.encode(conversation, draw.sizes)

        assert list(prompt.token_ids) == expected.tokens
        assert prompt.text_tokens + prompt.image_tokens == len(expected.tokens)
        assert prompt.image_tokens == sum(grid.tokens for grid in prompt.grids)
        assert [(3, 16 * grid.rows, 16 * grid.columns) for grid in prompt.grids] == [
            image.shape for image in expected.images
        ]
        # The red value of a picture is its index.
        reds = [
            round((image[0, 0, 0] * 0.26862954 + 0.48145466) * 255) for image in expected.images
        ]
        assert list(prompt.picture_order) == reds


def test_random_conversations_cover_what_they_claim():
    drawn = [Draw(seed, "sentencepiece") for seed in range(150)]
    conversations = [draw.conversation() for draw in drawn]
    roles = {message.role for c in conversations for message in c.messages}
    assert roles == {"system", "user", "assistant", "tool"}
    assert any(c.tools for c in conversations)
    assert any(c.messages[-1].prefix for c in conversations)
    assert any(
        c.picture_count > len(draw.sizes) for c, draw in zip(conversations, drawn, strict=True)
    )
    assert {size for draw in drawn for size in draw.sizes} >= set(SIZES)


def test_texts_ending_in_one_picture_are_shown_picture_first(tokenizer):
    both = Conversation(
        (
            *user(Image(1), Image(0)).messages,
            Message("assistant", (Text("two pictures"),)),
            *user(Text("and"), Image(2)).messages,
        )
    )
    prompt = tokenizer.encode(both, [(16, 16), (32, 16), (16, 32)])
    assert prompt.picture_order == (1, 0, 2)
    assert [(grid.rows, grid.columns) for grid in prompt.grids] == [(1, 2), (1, 1), (2, 1)]
    one = tokenizer.encode(user(Text("look at"), Image(0)), [(16, 16)])
    assert list(one.token_ids).index(tokenizer.vocabulary.image_id) == 2


@pytest.mark.parametrize("text", [*CONTROLS, "".join(CONTROLS), " ".join(CONTROLS)])
def test_text_never_becomes_a_control_token(tokenizer, family, text):
    plain = tokenizer.encode(user(Text("plain")), [])
    expected = sorted(set(plain.token_ids) & tokenizer.vocabulary.control_ids)
    prompt = tokenizer.encode(user(Text(text)), [])
    shown = [i for i in prompt.token_ids if i in tokenizer.vocabulary.control_ids]
    assert sorted(shown) == expected == [1, 3, 4]
    assert TextStream(tokenizer.vocabulary).push(prompt.token_ids) == text


def test_vocabulary_knows_the_ids_of_the_family(tokenizer, family):
    vocabulary = tokenizer.vocabulary
    assert tokenizer.family == family
    assert (vocabulary.image_id, vocabulary.image_break_id, vocabulary.image_end_id) == (
        (10, 14, 15) if family == "sentencepiece" else (10, 12, 13)
    )
    assert vocabulary.tool_calls_id == (5 if family == "sentencepiece" else 9)
    assert vocabulary.answer_ids == {vocabulary.eos_id, vocabulary.tool_calls_id}
    assert len(vocabulary) == (32768 if family == "sentencepiece" else 131072)
    assert all((i in vocabulary.control_ids) == (not p) for i, p in enumerate(vocabulary.pieces))


def test_openai_ids_become_nine_letters_the_same_in_call_and_result(tokenizer):
    ids = tokenizer.encode(called("call_abc123", "call_abc123"), []).token_ids
    text = TextStream(tokenizer.vocabulary).push(ids)
    told = re.findall(r"\b(?!arguments|weather)[0-9a-zA-Z]{9}\b", text)
    assert len(told) == 2
    assert told[0] == told[1]
    assert ids == tokenizer.encode(called(told[0], told[0]), []).token_ids
    other = tokenizer.encode(called("call_abc124", "call_abc124"), []).token_ids
    assert told[0] not in TextStream(tokenizer.vocabulary).push(other)


def folder_with(path: Path, **files: str) -> Path:
    for name, source in files.items():
        if source:
            shutil.copyfile(DATA / source, path / name)
        else:
            (path / name).write_text(json.dumps({}))
    return path


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("tokenizer.model.v7m1", "sentencepiece"),
        ("mistral_instruct_tokenizer_241114.model.v7m1", "sentencepiece"),
        ("tekken.json", "tekken"),
    ],
)
def test_the_tokenizer_of_a_folder_is_found(tmp_path, name, family):
    files = {name: FILES[family], "tokenizer.json": "", "config.json": "", "tokenizer.model": ""}
    assert Tokenizer.from_folder(folder_with(tmp_path, **files)).family == family


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer.json": ""}, "add tekken.json .* or tokenizer.model.v7m1"),
        ({"tokenizer.model.v7": FILES["sentencepiece"]}, "name it tokenizer.model.v7m1"),
        ({"tokenizer.model.v7m1": "", "tekken.json": ""}, "several tokenizers"),
        ({"tekken.json": "tekken_240718.json"}, "no picture settings"),
        ({"tekken.json": ""}, "no readable tokenizer"),
        ({"tokenizer.model.v7m1": ""}, "no readable tokenizer"),
    ],
)
def test_a_folder_without_a_usable_tokenizer_says_what_to_do(tmp_path, files, message):
    with pytest.raises(ModelConfigError, match=message):
        Tokenizer.from_folder(folder_with(tmp_path, **files))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelConfigError, match="nowhere cannot be read"):
        Tokenizer.from_folder(tmp_path / "nowhere")
