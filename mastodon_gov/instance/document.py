"""The tables of docs/it-team/instance.md, made from the model: `python -m mastodon_gov.instance.document`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mastodon_gov.instance.explain import allowed_at, field_at
from mastodon_gov.instance.model import Instance
from mastodon_gov.instance.problems import Key

PAGE = Path(__file__).resolve().parents[2] / "docs" / "it-team" / "instance.md"
BEGIN, END = "<!-- made from the model: begin -->\n", "<!-- made from the model: end -->"
# What load.py fills in itself.
NOT_WRITTEN = ("addresses", "trusted_ca", "server_files")
LISTS = {
    "organisations": "Each entry of `organisations` in organisations.yaml",
    "accounts": "Each entry of `accounts` in organisations.yaml",
}


def tables() -> str:
    """One table for each group of settings, in the order of the model."""
    text = _table("Top of instance.yaml", Instance, _rows(Instance, (), top=True))
    for name, field in Instance.model_fields.items():
        if name not in NOT_WRITTEN and (part := _part(field.annotation)):
            title = LISTS.get(name, f"`{name}`")
            text += _table(title, part, _rows(part, (name,)))
    return text


def _table(title: str, part: type[BaseModel], rows: Iterator[str]) -> str:
    head = "| Setting | Meaning | Allowed | Default |\n|---|---|---|---|"
    return f"\n### {title}\n\n{part.__doc__}\n\n{head}\n{''.join(rows)}"


def _rows(model: type[BaseModel], key: Key, *, top: bool = False) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = _part(field.annotation)
        if field.description and name not in NOT_WRITTEN:
            yield _row((*key, name), field)
        if inner and not top:
            yield from _rows(inner, (*key, name))


def _row(key: Key, field: FieldInfo) -> str:
    index: Key = ()
    for part in key:
        # A list stands between the two.
        inside = get_origin(field_at(Instance, index)[0]) is tuple
        index = (*index, 0, part) if inside else (*index, part)
    name = ".".join(map(str, key[1:] if key[0] in LISTS else key))
    cells = (f"`{name}`", " ".join((field.description or "").split()), allowed_at(Instance, index), _default(field))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined and field.default_factory is None:
        return "must be given"
    if field.default in (None, (), "", PydanticUndefined):
        return "none"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _part(annotation: Any) -> type[BaseModel] | None:
    """The group of settings in an annotation (`Owner`, `Acme | None`, `tuple[Rule, ...] | None`), if it is one."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    return next((part for inner in get_args(annotation) if (part := _part(inner))), None)


def updated(page: str) -> str:
    """The page with its tables made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{tables()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
