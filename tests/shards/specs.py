"""How to draw a token, said in one breath."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from shards.step import Draws, SampleSpec

_OF_DRAWS = {field.name for field in fields(Draws)}


def sample_spec(index: int = 0, **values: Any) -> SampleSpec:
    """Of the fields of ``SampleSpec`` and ``Draws`` alike."""
    plain = SampleSpec(Draws(seed=0, choice=0, temperature=0.0), index)
    return changed(plain, **values)


def changed(spec: SampleSpec, **values: Any) -> SampleSpec:
    """With other values of its own or of its ``Draws``."""
    of_draws = {name: value for name, value in values.items() if name in _OF_DRAWS}
    own = {name: value for name, value in values.items() if name not in _OF_DRAWS}
    return replace(spec, draws=replace(spec.draws, **of_draws), **own)
