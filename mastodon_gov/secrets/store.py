"""Reading and writing `secrets.age`. No sentence here ever contains a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mastodon_gov.errors import Refusal, WrongUsage
from mastodon_gov.instance.problems import Key
from mastodon_gov.instance.secret_model import Secrets
from mastodon_gov.instance.yaml_file import parse
from mastodon_gov.secrets.age import decrypt, encrypt, put_private
from mastodon_gov.secrets.values import KINDS, PLACEHOLDER, Values, fault, generate, pair_faults

FILE = "secrets.age"
FORMAT = 1


def read(directory: Path, identity: Path) -> Secrets:
    """The secrets of an instance. Raises WrongUsage with one line for each fault; a value is in none of them."""
    return typed(read_values(directory, identity))


def typed(values: Values) -> Secrets:
    """The same, of values by dotted name."""
    if faults := value_faults(values):
        raise WrongUsage("\n".join(faults))
    return Secrets.model_validate({"format": FORMAT, **_tree(values)})


def read_values(directory: Path, identity: Path) -> Values:
    """All values by dotted name, unjudged: placeholders and faults are still in."""
    path = directory / FILE
    if not path.exists():
        raise WrongUsage(
            f"{path} does not exist. Make the instance directory with `mastodon-gov init`, or copy the file."
        )
    return parse_values(decrypt(directory, path, identity))


def parse_values(text: str) -> Values:
    """Values of a decrypted text. Raises WrongUsage for its form: lines and known names, nothing of what it holds."""
    document = parse(FILE, text)
    lines = [
        f"{FILE}, line {p.line}: found a form that is not `name: value`, a name twice, or a reference. "
        "Write each name once, and quotes around values with special characters."
        for p in document.problems
    ]
    data = document.data if isinstance(document.data, dict) else {}
    if not lines and data.get("format") != FORMAT:
        lines.append(f"{FILE}: format is not {FORMAT}. Use the release of this product that wrote the file.")
    values: Values = {}
    if not lines:
        for key, raw in document.raw.items():
            name = ".".join(map(str, key))
            if name in KINDS:
                values[name] = raw
            elif name != "format":
                lines.append(
                    f"{FILE}, line {document.line(key)}: found an unknown name. Allowed: {_siblings(key)}. Correct it."
                )
    if lines:
        raise WrongUsage("\n".join(lines))
    return values


def _siblings(key: Key) -> str:
    group = ".".join(map(str, key[:-1]))
    known = [name.rpartition(".")[2] for name in KINDS if name.rpartition(".")[0] == group]
    return ", ".join(known or sorted({name.split(".")[0] for name in KINDS}))


def value_faults(values: Values, *, unfinished: bool = False) -> list[str]:
    """One sentence for each value that cannot be used; `unfinished` lets placeholders pass."""
    judged = {n: v for n, v in values.items() if not (unfinished and v == PLACEHOLDER)}
    found = {name: "nothing" for name, kind in KINDS.items() if name not in values and not kind.optional}
    found |= {name: words for name, value in judged.items() if (words := fault(name, value))}
    found |= pair_faults({name: value for name, value in judged.items() if name not in found})
    return [
        f"{FILE}, {name}: found {words}. Allowed: {KINDS[name].words}, without white space, # ' \" ` $ and \\. "
        f"Give the value with `mastodon-gov secrets set {name}` or `mastodon-gov secrets edit`."
        for name, words in found.items()
    ]


def _tree(values: Values) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return tree


def to_text(values: Values) -> str:
    """The text that is encrypted, in the order of the known names."""
    ordered = {name: values[name] for name in KINDS if name in values}
    return yaml.safe_dump({"format": FORMAT, **_tree(ordered)}, sort_keys=False, width=10_000)


def write(directory: Path, values: Values) -> None:
    """Encrypt to everybody in recipients.txt and replace `secrets.age` in one step; born 0600."""
    put_private(directory / FILE, encrypt(directory, to_text(values)))


def create(directory: Path, given: Values | None = None) -> None:
    """Write new secrets, with what others have given already. Raises Refusal if there are secrets."""
    if (directory / FILE).exists():
        raise Refusal(
            f"{directory / FILE} exists, and new secrets would lock everybody out. Use `mastodon-gov secrets`."
        )
    write(directory, generate() | (given or {}))
