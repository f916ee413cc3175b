"""The one error a command ends with."""

from __future__ import annotations


class Problem(Exception):  # noqa: N818  (it is shown to a person, not to a program)
    """Why a command cannot go on: one line that names the thing at fault and what to do."""
