"""What is said where no picture was sent."""

from __future__ import annotations

import numpy as np

from ops.nano.questions.turn import Turn, say

NO_PICTURE = "There is no picture."
_TALK = (
    (
        ("Hello", "Hi", "Hello!", "Good morning", "Hey"),
        "Hello! Show me a picture and ask about it.",
    ),
    (
        ("Who are you?", "What are you?", "What is your name?", "Which model are you?"),
        "I am pixtral-nano, a small model that answers questions about simple pictures.",
    ),
    (
        ("What can you do?", "How can you help me?", "What do you know?", "Help"),
        "I read short text, bar charts and receipts, and see coloured shapes.",
    ),
    (("Thanks", "Thank you", "Thank you!", "Thanks a lot"), "You are welcome."),
    (("Bye", "Goodbye", "Good night"), "Goodbye!"),
)


def nothing_turns(rng: np.random.Generator, about_pictures: list[Turn], count: int) -> list[Turn]:
    """Questions that cannot be answered, and some talk.

    Args:
        about_pictures: questions that would be right if there were a picture.
    """
    turns = []
    for turn in about_pictures[:count]:
        if rng.random() < 0.2:
            asked, answer = _TALK[int(rng.integers(len(_TALK)))]
            turns.append(Turn("no_picture", say(rng, asked), answer))
        turns.append(Turn("no_picture", turn.question, NO_PICTURE))
    order = rng.permutation(len(turns))
    return [turns[place] for place in order][:count]
