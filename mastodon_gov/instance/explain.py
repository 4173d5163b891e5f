"""Turns pydantic's errors into problems with the words of the model."""

from __future__ import annotations

from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from mastodon_gov.instance.problems import Key, show
from mastodon_gov.instance.types import Allowed

# What a person may write, by the type in the model.
KINDS = {
    "IPv4Address": "an IP address such as 192.0.2.7 or 2001:db8::7",
    "IPv4Network": "a network such as 192.0.2.0/28 or 2001:db8:7::/64",
    "str": "text",
    "int": "a whole number",
    "bool": "true or false",
    "date": "a day such as 2027-01-31",
}


def field_at(model: type[BaseModel], key: Key) -> tuple[Any, list[Any]]:
    """Annotation and metadata of the field at a path of keys and indexes; (None, []) where the model has none."""
    annotation: Any = model
    metadata: list[Any] = []
    for part in key:
        annotation, inner = _open(annotation)
        metadata = [*inner]
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(part))
            if field is None:
                return None, []
            annotation, metadata = field.annotation, list(field.metadata)
        elif get_origin(annotation) in (tuple, dict):
            annotation = get_args(annotation)[0 if get_origin(annotation) is tuple else 1]
            metadata = []
        else:
            return None, []
    annotation, inner = _open(annotation)
    return annotation, [*metadata, *inner]


def _open(annotation: Any) -> tuple[Any, list[Any]]:
    """Take off `Annotated` and `| None`."""
    metadata: list[Any] = []
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *inner = get_args(annotation)
            metadata += [part for item in inner for part in getattr(item, "metadata", [item])]
        elif get_origin(annotation) in (Union, UnionType) and type(None) in get_args(annotation):
            annotation = next(a for a in get_args(annotation) if a is not type(None))
        else:
            return annotation, metadata


def allowed_at(model: type[BaseModel], key: Key) -> str:
    """What is allowed at this path, in words."""
    annotation, metadata = field_at(model, key)
    if words := [item.text for item in metadata if isinstance(item, Allowed)]:
        return words[-1]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"the keys {', '.join(annotation.model_fields)}"
    if get_origin(annotation) is tuple:
        return f"a list, each entry {allowed_at(model, (*key, 0))}"
    if get_origin(annotation) is dict:
        return f"`key: value` lines, each value {allowed_at(model, (*key, 'key'))}"
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    kind = KINDS.get(getattr((get_args(annotation) or [annotation])[0], "__name__", ""), "another value")
    return kind + _bounds(metadata)


def _bounds(metadata: list[Any]) -> str:
    low = next((m.ge for m in metadata if isinstance(m, Ge)), None)
    high = next((m.le for m in metadata if isinstance(m, Le)), None)
    if low is None:
        shortest = next((m.min_length for m in metadata if isinstance(m, MinLen)), None)
        longest = next((m.max_length for m in metadata if isinstance(m, MaxLen)), None)
        return f" of {shortest} to {longest} characters" if shortest and longest else ""
    return f" from {low} to {high}" if high is not None else f" of at least {low}"


def explain(model: type[BaseModel], error: ErrorDetails, key: Key, raw: str | None) -> tuple[str, str, str]:
    """Found, allowed and what to do, for one error at this path; `raw` is the value as it was written."""
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        return _unknown(model, key)
    if kind == "missing":
        return "nothing", allowed_at(model, key), f"Add the key {key[-1]}."
    if kind == "value_error":
        found, allowed = str(error["ctx"]["error"]).split("|")
        return found, allowed, "Keep one and remove the others." if " and " in found else "Add one."
    if kind == "too_short" and isinstance(value, (list, tuple)):
        return "an empty list", f"at least one entry: {allowed_at(model, (*key, 0))}", "Add an entry."
    if kind == "literal_error":
        return show(value), error["ctx"]["expected"], "Use the value this version of the product knows."
    found = f'"{raw}", read as {_type(value)}' if raw and not isinstance(value, str) else show(value)
    return found, allowed_at(model, key), _todo(value, allowed_at(model, key))


def _type(value: object) -> str:
    return {bool: "true or false", int: "a number", type(None): "nothing"}.get(type(value), "something else")


def _todo(value: object, allowed: str) -> str:
    """The next step for a value of the wrong kind or form."""
    if not isinstance(value, str):
        if value is None:
            return "Fill it in."
        meant_as_text = isinstance(value, int) and not allowed.startswith(("a whole", "true"))
        return "Put quotes around it if it is meant as text." if meant_as_text else "Correct the value."
    if not value.isascii() and "host name" in allowed:
        return _international(value)
    hints = {
        f'Write "{value.lower()}".': value != value.lower() and "small letters" in allowed,
        f"Write it as a list: [{value}].": allowed.startswith("a list"),
        "Write the name alone, without https:// and path.": "://" in value and "host name" in allowed[:20],
        "Write the number without quotes and leading zeros.": value.isdigit() and allowed.startswith("a whole number"),
        "Write true.": value.lower() in ("yes", "on") and allowed.startswith("true"),
        "Write false.": value.lower() in ("no", "off") and allowed.startswith("true"),
    }
    return next((hint for hint, fits in hints.items() if fits), "Correct the value.")


def _international(name: str) -> str:
    try:
        ascii_form = name.encode("idna").decode()
    except UnicodeError:
        return "Use letters a to z, digits and hyphens."
    return (
        f'Write the form that DNS and certificates use: "{ascii_form}". Check first that every letter is the one '
        "you mean: letters of other alphabets can look the same."
    )


def _unknown(model: type[BaseModel], key: Key) -> tuple[str, str, str]:
    parent, _ = field_at(model, key[:-1])
    known = list(parent.model_fields)
    close = get_close_matches(str(key[-1]), known, n=1, cutoff=0.6)
    elsewhere = [name for name, field in model.model_fields.items() if str(key[-1]) in _keys(field.annotation)]
    todo = "Remove the key."
    if close:
        todo = f"Did you mean {close[0]}?"
    elif elsewhere:
        todo = f"It belongs under {elsewhere[0]}: indent it there."
    return "an unknown key", ", ".join(known) if known else "no key", todo


def _keys(annotation: Any) -> set[str]:
    return set(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else set()
