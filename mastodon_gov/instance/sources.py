"""The files of an instance directory as one set of values, each of which knows its file and line."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from mastodon_gov.instance.problems import Key, show
from mastodon_gov.instance.types import Address
from mastodon_gov.instance.yaml_file import Document, read

INSTANCE, ORGANISATIONS, ADDRESSES = FILES = ["instance.yaml", "organisations.yaml", "addresses.yaml"]


class Sources:
    """What the files say, before the model has judged it; `data` is what the model will see."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.documents = {name: read(directory / name) for name in (INSTANCE, ORGANISATIONS)}
        addresses = directory / ADDRESSES
        self.documents[ADDRESSES] = read(addresses) if addresses.exists() else Document(ADDRESSES, data={})
        self.data: dict[str, Any] = self._top(INSTANCE)
        organisations, known = self._top(ORGANISATIONS), self._top(ADDRESSES)
        self._check_tops(organisations)
        self.data["organisations"] = organisations.get("organisations")
        if "accounts" in organisations:
            self.data["accounts"] = organisations["accounts"]
        self.data["addresses"] = known

    def _top(self, name: str) -> dict[str, Any]:
        document = self.documents[name]
        if isinstance(document.data, dict):
            return dict(document.data)
        if not document.problems and not (name == ADDRESSES and document.data is None):
            document.problem((), show(document.data), "`key: value` lines", "Start from the file that `init` writes.")
        return {}

    def _check_tops(self, organisations: dict[str, Any]) -> None:
        elsewhere = {"trusted_ca": "network.trusted_ca_files", "server_files": "server", "accounts": ORGANISATIONS}
        for name in ("organisations", "addresses", *elsewhere):
            if name in self.data:
                where = elsewhere.get(name, f"{name}.yaml")
                self.documents[INSTANCE].problem((name,), "an unknown key", where, "Move it there.")
        document = self.documents[ORGANISATIONS]
        if document.problems:
            return
        if organisations.get("format") != 1:
            document.problem(("format",), show(organisations.get("format")), "1", "Write `format: 1` at the top.")
        for key in organisations.keys() - {"format", "organisations", "accounts"}:
            document.problem((key,), "an unknown key", "format, organisations, accounts", "Remove the key.")

    def place(self, key: Key) -> tuple[Document, Key]:
        """The file a key of the model comes from, and its path there."""
        if key[:1] in (("organisations",), ("accounts",)):
            return self.documents[ORGANISATIONS], key
        if key[:1] == ("addresses",):
            return self.documents[ADDRESSES], key[1:]
        return self.documents[INSTANCE], key

    def problem(self, key: Key, found: str, allowed: str, todo: str) -> None:
        """Note what is wrong with a value."""
        document, inner = self.place(key)
        document.problem(inner, found, allowed, todo)

    def faulty(self, key: Key) -> bool:
        """Whether a problem is known at, under or above this path (above: its file or its group was not readable)."""
        document, inner = self.place(key)
        found = (problem.key for problem in document.problems)
        return any(other[: len(inner)] == inner or (inner[: len(other)] == other) for other in found)

    def get(self, *key: str | int) -> Any:
        """A value that is there and has no problem; None otherwise."""
        value: Any = self.data
        for part in key:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return None if self.faulty(key) else value

    def known(self, name: str) -> list[Address]:
        """Addresses that addresses.yaml gives this name; none for a name that is not listed or wrongly written."""
        try:
            return [ip_address(text) for text in self.data["addresses"].get(name) or ()]
        except (ValueError, TypeError):
            return []

    def replace(self, section: str, name: str, values: list[Any]) -> None:
        """Give the model other values than the file has: what a name or a file name stands for."""
        self.data[section] = {**self.data[section], name: values}


def is_network(text: object) -> bool:
    """Whether this is an address or a network, host bits or not."""
    try:
        ip_network(str(text), strict=False)
    except ValueError:
        return False
    return isinstance(text, str)
