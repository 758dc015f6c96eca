"""Checks a part of a document against its model: every mistake with its place and the nearest right name."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

import orjson
from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError

from cdcsync.document import Document, KeyPath, Problem, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

ModelT = TypeVar("ModelT", bound=BaseModel)

MESSAGES: Final = {
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "dict_type": "expected keys and values",
    "model_type": "expected keys and values",
    "model_attributes_type": "expected keys and values",
    "none_required": "expected nothing",
}
"""Words for the mistakes that people make most; for the others pydantic's own, which hold no values."""

QUOTED: Final = re.compile(r"'([^']*)'")


@dataclass(slots=True)
class Checked:
    """Where in a document a model's data stands, and what went wrong there."""

    document: Document
    secret: set[KeyPath] = field(default_factory=set)
    """Texts that may hold a secret by a reference: messages about them show nothing of them."""
    problems: list[Problem] = field(default_factory=list)

    def model(self, kind: type[ModelT], value: Any, path: KeyPath, *, strict: bool = True) -> ModelT | None:
        """Return the model of the value at `path`, or None with its mistakes noted.

        Strict as JSON is: no text becomes a number, but a text becomes a path, an enum or a secret.
        """
        rooted = _rooted(kind, value, (), Path(self.document.file).parent)
        try:
            return kind.model_validate_json(orjson.dumps(rooted), strict=strict)
        except ValidationError as error:
            self._note(kind, value, path, error.errors(include_url=False, include_input=False))
            return None

    def _note(self, kind: type[BaseModel], value: Any, path: KeyPath, errors: list[ErrorDetails]) -> None:
        """Join what the branches of a union say of one place into one problem."""
        said: dict[KeyPath, dict[str, None]] = {}
        for error in errors:
            at = _place(error, value)
            message = self._message(kind, path, at, error)
            if error["type"] in ("enum", "literal_error"):
                message += _did_you_mean(value, at, error["ctx"]["expected"])
            if error["type"] == "extra_forbidden":
                self.problems.append(Problem(self.document.key_mark((*path, *at)), message))
            else:
                said.setdefault((*path, *at), {})[message] = None
        for full, messages in said.items():
            name = f"{full[-1]}: " if full and isinstance(full[-1], str) else ""
            text = name + " or ".join(message.removeprefix(name) for message in messages)
            self.problems.append(Problem(self.document.value_mark(full), text))

    def _message(self, kind: type[BaseModel], path: KeyPath, at: KeyPath, error: ErrorDetails) -> str:
        """Return what is wrong, never the value: pydantic's own words hold none, a validator's may."""
        if error["type"] == "extra_forbidden":
            name = str(error["loc"][-1])
            return f"unknown key {name}{nearest(name, _names(_model_at(kind, at[:-1])))}"
        if error["type"] == "missing":
            return f"{error['loc'][-1]} is missing"
        if error["type"] in ("value_error", "assertion_error"):
            hidden = (*path, *at) in self.secret or _is_secret(_field_at(kind, at))
            return "not a value that it takes" if hidden else error["msg"].split(", ", 1)[-1]
        return MESSAGES.get(error["type"], error["msg"].replace("Input should be", "expected"))


def _did_you_mean(value: Any, at: KeyPath, expected: str) -> str:
    """Return the nearest of the expected words; a guess only, so nothing where none is near."""
    for step in at:
        value = value[step]
    near = difflib.get_close_matches(value, QUOTED.findall(expected), 1) if isinstance(value, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def _rooted(kind: type[BaseModel], value: Any, path: KeyPath, folder: Path) -> Any:
    """Return the data with every relative path of a `Path` field put under the file's folder; "-" is no path."""
    if isinstance(value, dict):
        return {key: _rooted(kind, item, (*path, key), folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_rooted(kind, item, (*path, at), folder) for at, item in enumerate(value)]
    info = _field_at(kind, path) if isinstance(value, str) and value not in ("", "-") else None
    if info is None or not _mentions(info.annotation, (Path,)):
        return value
    return str(folder / Path(value).expanduser())


def _place(error: ErrorDetails, value: Any) -> KeyPath:
    """Return the part of pydantic's location that exists in the data, without its names of union branches."""
    path: list[str | int] = []
    for step in error["loc"]:
        inside = isinstance(value, dict) and step in value
        inside = inside or (isinstance(value, list) and isinstance(step, int) and step < len(value))
        if inside:
            path.append(step)
            value = value[step]
    return tuple(path)


def _fields(kind: type[BaseModel]) -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield each field's attribute, its name in a file, and itself."""
    for attribute, info in kind.model_fields.items():
        yield attribute, info.alias or attribute, info


def _names(kind: type[BaseModel] | None) -> list[str]:
    return [name for _, name, _ in _fields(kind)] if kind else []


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _field_at(kind: type[BaseModel], path: KeyPath) -> FieldInfo | None:
    """Return the field that a path of keys leads to; list indexes are stepped over."""
    info: FieldInfo | None = None
    models = [kind]
    for step in path:
        if isinstance(step, int):
            continue
        info = next((found for model in models for _, name, found in _fields(model) if name == step), None)
        if info is None:
            return None
        models = list(_models_in(info.annotation))
    return info


def _model_at(kind: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    if not any(isinstance(step, str) for step in path):
        return kind
    info = _field_at(kind, path)
    return next(_models_in(info.annotation), None) if info else None


def _is_secret(info: FieldInfo | None) -> bool:
    return info is not None and _mentions(info.annotation, (SecretStr, SecretBytes))


def _mentions(annotation: Any, kinds: tuple[type, ...]) -> bool:
    return annotation in kinds or any(_mentions(part, kinds) for part in get_args(annotation))


def secrets_in(model: BaseModel, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield where a validated model holds secrets that are not empty."""
    for attribute, name, _ in _fields(type(model)):
        yield from _secrets_of(getattr(model, attribute), (*path, name))


def _secrets_of(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    if isinstance(value, BaseModel):
        yield from secrets_in(value, path)
    elif isinstance(value, SecretStr | SecretBytes):
        if value.get_secret_value():
            yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _secrets_of(item, (*path, key))
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from _secrets_of(item, (*path, at))
