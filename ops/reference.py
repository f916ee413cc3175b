"""COMMANDS.md and CONFIG.md, written from the code: ``python -m ops.reference`` (--check: compare).

A test compares, so they never tell of what is not there.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ops.config_keys import MEANINGS
from serve_app import config as configuration

FOLDER = Path(__file__).parent
_GENERATED = "<!-- Written by `python -m ops.reference`; do not edit. -->"
_EXAMPLE = re.compile(r"\n*Example: (pixtral .+)\Z", re.DOTALL)
# A command and its parameters, of the click that typer carries within itself and does not export.
Command = Any
Parameter = Any
_TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "Decimal": "number",
    "bool": "true or false",
}
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def pages() -> Mapping[Path, str]:
    return {FOLDER / "COMMANDS.md": commands(), FOLDER / "CONFIG.md": config()}


def commands() -> str:
    from ops import cli

    root = typer.main.get_command(cli.app)
    parts = [
        _GENERATED,
        "# Commands",
        "Each shows the same with `--help`. Shell completion: `pixtral --install-completion`.",
    ]
    for words, command in walk(root, ("pixtral",)):
        parts.append(_command(words, command))
    return "\n\n".join(parts) + "\n"


def walk(command: Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Every command that does something, with the words that call it."""
    children: Mapping[str, Command] | None = getattr(command, "commands", None)
    if children is None:
        yield words, command
        return
    for name, child in children.items():
        if not child.hidden:
            yield from walk(child, (*words, name))


def example(command: Command) -> str | None:
    """What its help shows after ``Example:``, on one line."""
    found = _EXAMPLE.search(inspect.cleandoc(command.help or ""))
    return None if found is None else " ".join(found[1].split())


def _command(words: tuple[str, ...], command: Command) -> str:
    told = _EXAMPLE.sub("", inspect.cleandoc(command.help or ""))
    shown = [p for p in command.params if not getattr(p, "hidden", False)]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    usage = " ".join([*words, *(_placeholder(each) for each in arguments), "[OPTIONS]"])
    parts = [f"## {' '.join(words[1:])}", told, f"    {usage}"]
    rows = [_parameter(each) for each in shown if each.name != "help"]
    if rows:
        parts.append("\n".join(["| | | default |", "|---|---|---|", *rows]))
    if (shows := example(command)) is not None:
        parts.append(f"Example: `{shows}`")
    return "\n\n".join(parts)


def _placeholder(parameter: Parameter) -> str:
    name: str = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _parameter(parameter: Parameter) -> str:
    if parameter.param_type_name == "argument":
        name = f"`{_placeholder(parameter)}`"
    else:
        names = ", ".join(f"`{each}`" for each in parameter.opts)
        value = "" if getattr(parameter, "is_flag", False) else f" {_value(parameter)}"
        name = names + value
    return f"| {name} | {_cell(getattr(parameter, 'help', None) or '')} | {_default(parameter)} |"


def _value(parameter: Parameter) -> str:
    choices = type(parameter.default) if isinstance(parameter.default, Enum) else ()
    text = "\\|".join(map(_plain, choices)) or parameter.metavar or parameter.name.upper()
    return f"`{text}`"


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if callable(default) or default in (None, False, "", ()) or "Sentinel" in repr(default):
        return ""
    return f"`{_plain(default)}`"


def config() -> str:
    parts = [
        _GENERATED,
        "# Config",
        "One YAML file, `pixtral up --config FILE`: a mapping of sections. Unknown keys are refused"
        " by name. Profiles to start from are in `ops/profiles/`.",
    ]
    for name, section in sections().items():
        field = configuration.Config.model_fields[name]
        default = None if field.is_required() else field.default
        rows = [
            f"| `{key}` | {_type(of)} | {shown} | {_bounds(of)} | {_cell(told)} |"
            for key, of, shown in keys(section, default)
            for told in [meaning(f"{name}.{key}")]
        ]
        head = ["| key | type | default | bounds | |", "|---|---|---|---|---|"]
        parts += [f"## {name}", _prose(section), "\n".join([*head, *rows])]
    return "\n\n".join(part for part in parts if part) + "\n"


def keys(
    section: type[BaseModel], default: object, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo, str]]:
    """Dotted key, field and default in words, of every value in ``section``."""
    for name, field in section.model_fields.items():
        inner = _model_of(field)
        value = getattr(default, name, None) if default is not None else field.default
        if inner is not None:
            # A section that is absent unless given has its own defaults once it is.
            yield from keys(inner, value, f"{prefix}{name}.")
        elif default is None and field.is_required():
            yield f"{prefix}{name}", field, "required"
        else:
            yield f"{prefix}{name}", field, f"`{_plain(value)}`"


def meaning(key: str) -> str:
    """Of a dotted key. Raises KeyError for one that nobody explained."""
    section, _, rest = key.partition(".")
    return attributes(sections()[section]).get(rest) or MEANINGS[key]


def sections() -> Mapping[str, type[BaseModel]]:
    fields = configuration.Config.model_fields.items()
    models = ((name, _model_of(field)) for name, field in fields)
    return {name: model for name, model in models if model is not None}


def attributes(section: type[BaseModel]) -> Mapping[str, str]:
    """What a section's docstring lists under ``Attributes:``."""
    _, _, listed = inspect.cleandoc(section.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", listed, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _prose(section: type[BaseModel]) -> str:
    if section.__doc__ == BaseModel.__doc__ or not section.__doc__:
        return ""
    text = inspect.cleandoc(section.__doc__).partition("Attributes:\n")[0]
    return text.replace("``", "`").strip()


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    options = get_args(field.annotation) or (field.annotation,)
    models = [each for each in options if inspect.isclass(each) and issubclass(each, BaseModel)]
    return models[0] if models else None


def _type(field: FieldInfo) -> str:
    return _cell(_type_name(field.annotation))


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(map(str, get_args(annotation)))
    if origin in (Union, UnionType):
        inner = [each for each in get_args(annotation) if each is not type(None)]
        return " or ".join(map(_type_name, inner)) + ", or null"
    if origin is tuple:
        return f"list of {_type_name(get_args(annotation)[0])}"
    name: str = annotation.__name__
    return _TYPES.get(name, name.lower())


def _bounds(field: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(rule, name):,}"
        for rule in field.metadata
        for name, sign in _SIGNS.items()
        if getattr(rule, name, None) is not None
    ]
    return ", ".join(found)


def _plain(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}" if value >= 100_000 else str(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return str(value) if value != "" else '""'


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


def main() -> int:
    """Write the pages; with --check, only say which differ."""
    stale = []
    for file, text in pages().items():
        if not file.is_file() or file.read_text() != text:
            stale.append(file.name)
            if "--check" not in sys.argv:
                file.write_text(text)
    if stale and "--check" in sys.argv:
        print(f"stale: {', '.join(stale)}; run `python -m ops.reference`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
