"""One YAML file with the line of every key and value, read so that nothing is guessed.

Only `true`, `false`, `null`, nothing and plain whole numbers are more than text. YAML 1.1's other guesses (`no` is
false, `0123` is 83, `12:30` is 750, `4.10` is 4.1, `2026-01-01` is a date) stay what the person wrote: text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mastodon_gov.instance.problems import Key, Problem, dotted

WHOLE = re.compile(r"^(0|-?[1-9][0-9]*)$")
# What YAML itself makes of a value without a tag.
STANDARD = "tag:yaml.org,2002:"
PLAIN = frozenset("str int float bool null timestamp merge value map seq".split())
CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}


@dataclass
class Document:
    """Data of one file; `lines` and `raw` give the line and the written text of a path of keys and indexes."""

    file: str
    data: object = None
    lines: dict[Key, int] = field(default_factory=dict)
    raw: dict[Key, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, key: Key) -> int:
        """Line of a key, or of the nearest part above it that is there."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)

    def problem(self, key: Key, found: str, allowed: str, todo: str) -> None:
        """Note what is wrong with the value at this key."""
        self.problems.append(Problem(self.file, self.line(key), key, found, allowed, todo))


class _Loader(yaml.SafeLoader):
    """PyYAML's parser without references: they hide where a value comes from."""

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML has no types here
        if getattr(event, "anchor", None):
            mark = event.start_mark
            raise yaml.MarkedYAMLError(
                problem="a reference (& or *); write the value out in each place", problem_mark=mark
            )
        return super().compose_node(parent, index)  # type: ignore[arg-type]  # the stub wants an int, PyYAML passes nodes


def read(path: Path) -> Document:
    """Read a file; what is wrong with its form lies in the document's problems, and its data is then partial."""
    document = Document(path.name)
    try:
        return parse(path.name, path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        document.problem(
            (), "no such file", f"a file {path.name} in {path.parent}", "Make it with `mastodon-gov init`."
        )
    except OSError as error:
        document.problem(
            (), f"a file that cannot be read ({error.strerror})", "a readable file", "Check its owner and mode."
        )
    except UnicodeDecodeError as error:
        document.problem((), f"a byte that is not UTF-8 (at {error.start})", "text in UTF-8", "Save it as UTF-8.")
    return document


def parse(name: str, text: str) -> Document:
    """As `read`, for a text; `name` is what problems call it."""
    document = Document(name)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        _syntax(document, error)
    except yaml.reader.ReaderError as error:
        document.problem((), f"a control character (at {error.position})", "printable text", "Remove it.")
    else:
        document.lines[()] = 1
        document.data = None if node is None else _value(document, node, ())
    return document


def _syntax(document: Document, error: yaml.MarkedYAMLError) -> None:
    mark = error.problem_mark or error.context_mark
    document.lines[()] = mark.line + 1 if mark else 1
    what = (error.problem or "a form that is not YAML").replace(
        "found character '\\t' that cannot start any token", "a tab"
    )
    if error.context_mark and mark and error.context_mark.line != mark.line:
        what += f" in what began in line {error.context_mark.line + 1}"
    document.problem(
        (),
        what,
        "YAML: `key: value`, indented with spaces",
        "Compare the line, and the one above, with its neighbours.",
    )


def _value(document: Document, node: yaml.Node, key: Key) -> object:
    document.lines.setdefault(key, node.start_mark.line + 1)
    if node.tag.removeprefix(STANDARD) not in PLAIN:
        document.problem(key, f"the tag {node.tag.replace(STANDARD, '!!')}", "plain values", "Remove the tag.")
        return None
    if isinstance(node, yaml.MappingNode):
        return dict(_pairs(document, node, key))
    if isinstance(node, yaml.SequenceNode):
        return [_value(document, item, (*key, index)) for index, item in enumerate(node.value)]
    document.raw[key] = node.value
    return _scalar(node)


def _pairs(document: Document, node: yaml.MappingNode, key: Key) -> Iterator[tuple[str, object]]:
    for name_node, value_node in node.value:
        line = name_node.start_mark.line + 1
        if not isinstance(name_node, yaml.ScalarNode):
            document.lines.setdefault((*key, "?"), line)
            document.problem(
                (*key, "?"), "a key that is not text", "`key: value`", "Write a plain word before the colon."
            )
            continue
        inner = (*key, name_node.value)
        if inner in document.lines:
            first = document.lines[inner]
            problem = Problem(
                document.file, line, inner, f"a second {dotted(inner)} (the first is in line {first})",
                "each key once", "Keep one of the two.",
            )  # fmt: skip
            document.problems.append(problem)
            continue
        document.lines[inner] = line
        yield name_node.value, _value(document, value_node, inner)


def _scalar(node: yaml.Node) -> object:
    if getattr(node, "style", None) is not None:
        return node.value
    if node.value in CONSTANTS:
        return CONSTANTS[node.value]
    return int(node.value) if WHOLE.match(node.value) else node.value
