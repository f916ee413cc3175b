"""Dialogues in training are laid out as the server lays them out."""

from __future__ import annotations

import pytest

from ops import nano
from ops.nano.questions.turn import Turn
from ops.nano.train.dialogues import DialogueBatches
from ops.nano.train.tokens import END, DialogueTokens
from ops.nano.train.vocabulary import Vocabulary
from shards.conversation import Conversation, Image, Message, Text
from shards.detokenizer import TextStream
from shards.grid import Grid
from shards.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer.from_folder(nano.ensure(tmp_path_factory.mktemp("nano") / "model"))


@pytest.fixture(scope="module")
def text():
    return DialogueTokens()


def decoded(tokenizer: Tokenizer, ids: list[int]) -> str:
    stream = TextStream(tokenizer.vocabulary, ())
    return stream.push(ids) + stream.finish()


@pytest.mark.parametrize(
    ("answer", "spelled"),
    [
        ("red", ()),
        ("house", ("house",)),
        ("12.40", ("12.40",)),
        ("form bu 4073", ("form", "bu", "4073")),
        ('{"text": "QUEEN"}', ("QUEEN",)),
        ('{"tallest": "Mon", "bars": 3}', ("Mon",)),
        ("A red circle and a blue star.", ()),
    ],
)
def test_a_spelled_answer_reads_as_if_it_were_not(tokenizer, text, answer, spelled):
    ids = text.answer(Turn("word", "?", answer, spelled))
    assert decoded(tokenizer, ids) == answer
    if spelled:
        assert len(ids) > sum(map(len, spelled))
    else:
        assert ids == text.text(answer)


def test_a_dialogue_is_what_the_server_makes_of_its_messages(tokenizer, text):
    batches = DialogueBatches("train", Vocabulary(range(32768), 32768), 16, 600)
    batch = batches[1]
    rows = (batch.token_ids - 1).view(-1, batch.length).tolist()
    # Some words are hidden, so that unknown ones are no surprise.
    ids = next(row for row in rows if -1 not in row)
    questions, answers = _read(tokenizer, ids)
    grid = batch.pictures.grid
    messages = []
    for place, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        shown = (Image(0),) if place == 0 else ()
        messages.append(Message("user", (*shown, Text(question))))
        messages.append(Message("assistant", (Text(answer),)))
    size = (grid.columns * 16, grid.rows * 16)
    served = tokenizer.encode(Conversation(tuple(messages[:1])), [size]).token_ids
    assert tuple(ids[: len(served)]) == served
    assert len(questions) > 1


def _read(tokenizer: Tokenizer, ids: list[int]) -> tuple[list[str], list[str]]:
    """The questions and answers of one row."""
    questions: list[str] = []
    answers: list[str] = []
    here: list[int] = []
    for token in ids:
        if token == 4:
            questions.append(decoded(tokenizer, [each for each in here if each > 100]))
            here = []
        elif token == END:
            if not here:
                break
            answers.append(decoded(tokenizer, here))
            here = []
        else:
            here.append(token)
    return questions, answers


def test_pictures_take_the_tokens_of_their_grids(text):
    assert text.pictures([Grid(2, 2), Grid(1, 1)]) == [10, 10, 14, 10, 10, 15, 10, 15]
