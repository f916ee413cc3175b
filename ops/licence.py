"""Under which licence the weights of a released model may be used; told where one is chosen.

A model is known by its shape, not by its folder's name, which anyone may change.
"""

from __future__ import annotations

from shards.config import TextConfig

_PIXTRAL_12B = (5120, 40)
_PIXTRAL_LARGE = (12288, 88)


def licence(text: TextConfig) -> str | None:
    """One sentence; None for a model that Mistral did not release."""
    shape = (text.dim, text.layers)
    if shape == _PIXTRAL_12B:
        return "Pixtral 12B's weights are under Apache-2.0."
    if shape == _PIXTRAL_LARGE:
        return (
            "Pixtral Large's weights are under the Mistral Research License: research and"
            " non-commercial use only, unless you hold a commercial licence from Mistral."
        )
    return None
