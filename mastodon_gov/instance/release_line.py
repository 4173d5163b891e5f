"""Writing the version into a person's instance.yaml: one value changes, every other byte stays."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from mastodon_gov.errors import Refusal

FILE = "instance.yaml"


def with_release(text: str, version: str) -> str:
    """The text with another value of the key `release`. Refusal when it has none."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    for key, value in pairs:
        if key.value == "release" and isinstance(value, yaml.ScalarNode):
            return text[: value.start_mark.index] + version + text[value.end_mark.index :]
    raise Refusal(f"{FILE} has no key `release` to write {version} to. Add the line `release: {version}`.")


def write_release(directory: Path, version: str) -> str:
    """Change the file by one rename, keeping its mode; returns the text that was there before."""
    path = directory / FILE
    before = path.read_text(encoding="utf-8")
    put(path, with_release(before, version))
    return before


def put(path: Path, text: str) -> None:
    """Replace a file whole, or not at all."""
    if path.read_text(encoding="utf-8") == text:
        return
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.chmod(path.stat().st_mode & 0o777)
    os.replace(new, path)
