"""A verb writes organisations.yaml: comments, order and everything else stay as the person wrote them."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mastodon_gov.errors import Refusal
from mastodon_gov.instance.load import load
from mastodon_gov.instance.sources import ORGANISATIONS

LARGE = 2**20  # bytes


def change_account(directory: Path, handle: str, values: dict[str, str]) -> Callable[[], None]:
    """Check a change of one account and return what writes it; nothing is written before that is called.

    Raises Refusal with the sentences of `load` when the file would be wrong afterwards.
    """
    path = directory / ORGANISATIONS
    text = path.read_text(encoding="utf-8")
    yaml = _yaml(text)
    data = yaml.load(text)
    (entry,) = [each for each in data["accounts"] if str(each["handle"]).lower() == handle.lower()]
    entry.update(values)
    written = io.StringIO()
    yaml.dump(data, written)
    _refuse_wrong(directory, written.getvalue())
    return lambda: _replace(path, written.getvalue())


def _yaml(text: str) -> Any:
    """ruamel as careful as our reader: long lines stay long, quotes stay, lists keep the indentation they have."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    # A list under its key is indented in files that `init` writes; ruamel would move it to the left.
    if "\n  - " in text:
        yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _refuse_wrong(directory: Path, text: str) -> None:
    with tempfile.TemporaryDirectory(prefix="mastodon-gov-") as place:
        copy = Path(place) / "instance"
        shutil.copytree(directory, copy, ignore=_not_needed)
        (copy / ORGANISATIONS).write_text(text, encoding="utf-8")
        try:
            load(copy)
        except Refusal as refusal:
            raise Refusal(f"The change was not made, because the file would be wrong:\n{refusal}") from None


def _not_needed(place: str, names: list[str]) -> set[str]:
    """What `load` does not read: secrets, and everything large."""
    secret = {name for name in names if name.startswith(".") or name in ("identity.txt", "deploy_key")}
    return secret | {n for n in names if n.endswith(".age") or (Path(place) / n).stat().st_size > LARGE}


def _replace(path: Path, text: str) -> None:
    """A new file beside the old one, then the name."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    shutil.copymode(path, beside)
    os.replace(beside, path)
