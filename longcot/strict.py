"""Strict YAML: every value keeps its line, and nothing is read loosely.

PyYAML's own scalar rules read 1e-5 as text, `no` as false, 010 as 8 and keep the last of two equal
keys; here numbers are numbers, words are words, and a repeated key stops the run.
"""

import dataclasses
import difflib
import re
import types
import typing
from pathlib import Path

import yaml

from longcot.errors import RecipeError


def read_recipe(path: Path) -> str:
    """The text of a recipe file; raises RecipeError naming a near one when there is no such file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.stem, [p.stem for p in path.parent.glob("*.yaml")])
        hint = f"; did you mean {path.with_stem(near[0])}?" if near else "; see recipes/*.yaml"
        raise RecipeError(f"{path}: no such recipe{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None


def read_sections(
    text: str,
    path: str,
    known: typing.Collection[str] | None,
    former: typing.Mapping[str, str] = types.MappingProxyType({}),
) -> tuple[dict, dict]:
    """Parse `text` into {section: {key: value}} and {"section.key": "file:line"}.

    `known` None takes sections of any name. `former` tells the new place of names that flat files of
    other projects write at the top.
    Raises RecipeError for broken YAML, an unknown section, a repeated key, a section without keys.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise RecipeError(_unreadable(path, error)) from None
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(f"{path}:1: a recipe is a mapping of sections: {', '.join(known or ())}")
    values: dict[str, dict] = {}
    lines: dict[str, str] = {}
    for section, line, body in _pairs(root, path, ""):
        if known is not None and section not in known:
            raise RecipeError(
                f"{path}:{line}: unknown section {section!r}"
                f"{renamed(section, former) or nearest(section, known)} (known: {', '.join(known)})"
            )
        if not isinstance(body, yaml.MappingNode):
            raise RecipeError(f"{path}:{line}: section {section!r} needs keys")
        values[section] = {}
        lines[section] = f"{path}:{line}"
        for key, line, node in _pairs(body, path, f"{section}."):
            where = lines[f"{section}.{key}"] = f"{path}:{line}"
            values[section][key] = _scalar(node, where)
    return values, lines


def _unreadable(path: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}" if mark else path
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    remedy = "; indent with spaces" if "\\t" in problem else ""
    return f"{where}: not readable as YAML: {problem}{remedy}"


def _pairs(node: yaml.MappingNode, path: str, prefix: str) -> typing.Iterator:
    """(key, line, value) of a mapping; the key's own line, for an alias stands elsewhere."""
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in seen:
            raise RecipeError(
                f'{path}:{line}: key "{prefix}{key}" appears twice (first on line {seen[key]})'
            )
        seen[key] = line
        yield key, line, value_node


def apply_override(override: str, values: dict, lines: dict, known: typing.Collection[str]) -> None:
    """Put `section.key=value` of a command line into what `read_sections` gave."""
    key, equals, text = override.partition("=")
    section, dot, leaf = key.partition(".")
    if not equals or not dot or section not in known:
        raise RecipeError(
            f"command line: {override!r} is not section.key=value"
            f"{nearest(section, known)}; sections: {', '.join(known)}"
        )
    if section not in values:
        raise RecipeError(f"command line: {override!r}: the recipe has no section {section!r}")
    values[section][leaf] = read_value(text)
    lines[key] = f"command line ({override})"


def read_value(text: str) -> typing.Any:
    """Parse the right side of `key=value`: a plain scalar, a quoted text or a [list]."""
    if not text.startswith(("[", '"', "'")):
        return _parse(text)
    try:
        return _scalar(yaml.compose(text, Loader=yaml.SafeLoader), "command line")
    except yaml.YAMLError as error:
        raise RecipeError(f"command line: {text!r} is not readable: {error}") from None


def _scalar(node: yaml.Node, where: str) -> typing.Any:
    if isinstance(node, yaml.SequenceNode):
        return tuple(_scalar(item, where) for item in node.value)
    if not isinstance(node, yaml.ScalarNode):
        raise RecipeError(f"{where}: a plain value or a list is wanted here, not a mapping")
    return node.value if node.style else _parse(node.value)


def _parse(text: str) -> typing.Any:
    words = {"true": True, "false": False, "null": None, "~": None, "": None}
    if text in words:
        return words[text]
    if re.fullmatch(r"[-+]?(0|[1-9]\d*)", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?", text) and not re.match(
        r"0\d", text
    ):
        return float(text)
    return text


def checked(value: typing.Any, hint: typing.Any, label: str) -> typing.Any:
    """Return `value` if it has the type `hint`; raises RecipeError starting with `label`."""
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            near = difflib.get_close_matches(str(value), choices, n=1)
            extra = f"; did you mean {near[0]!r}?" if near else ""
            raise RecipeError(f"{label} is {value!r}, must be one of {', '.join(choices)}{extra}")
        return value
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if option is float and type(value) is int:
            return float(value)
        if typing.get_origin(option) is tuple:
            if isinstance(value, tuple) and value and all(isinstance(v, str) for v in value):
                return value
        elif type(value) is option:
            return value
    names = {
        str: "text (quote it)",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
    }
    wanted = [names.get(o, "null" if o is types.NoneType else "a list of texts") for o in options]
    raise RecipeError(f"{label} is {value!r}, must be {' or '.join(wanted)}")


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """`; did you mean ...?` for a misspelt word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def renamed(word: str, former: typing.Mapping[str, str]) -> str:
    """`; it is now ...` for a name of old, or nothing."""
    return f"; it is now {former[word]}" if word in former else ""


def build_section(
    section: str,
    kind: typing.Any,
    given: dict,
    lines: dict,
    former: typing.Mapping[str, str] = types.MappingProxyType({}),
) -> typing.Any:
    """Make the dataclass `kind` (or the one in `kind | None`) of a section's values, each checked.

    Raises RecipeError for an unknown, a missing or a mistyped key, with file and line.
    """
    kind = next((k for k in typing.get_args(kind) if k is not types.NoneType), kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    for key in given:
        if key not in known:
            raise RecipeError(
                f'{lines[f"{section}.{key}"]}: unknown key "{section}.{key}"'
                f"{renamed(key, former) or nearest(key, known)} (known: {', '.join(known)})"
            )
    hints = typing.get_type_hints(kind)
    for name, spec in known.items():
        if name in given:
            where = lines[f"{section}.{name}"]
            given[name] = checked(given[name], hints[name], f"{where}: {section}.{name}")
        elif spec.default is dataclasses.MISSING:
            raise RecipeError(
                f'{lines[section]}: key "{section}.{name}" is missing; it can change a result, '
                "so it has no default and must be written"
            )
    return kind(**given)
