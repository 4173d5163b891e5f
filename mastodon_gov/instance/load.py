"""Reads an instance directory into the typed `Instance`, or refuses with every fault at once. Opens no connection."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mastodon_gov.errors import WrongUsage
from mastodon_gov.instance.explain import explain
from mastodon_gov.instance.model import Instance
from mastodon_gov.instance.organisation_rules import check_organisations
from mastodon_gov.instance.problems import Key, refuse, show
from mastodon_gov.instance.rules import check_rules
from mastodon_gov.instance.server_rules import check_server, read_files
from mastodon_gov.instance.sources import ADDRESSES, FILES, Sources, is_network

NAMED_LISTS = (("access", "networks"), ("network", "resolvers"))


def load(directory: Path) -> Instance:
    """The instance of this directory. Raises WrongUsage: a line for each fault, in the order of files and lines."""
    if not directory.is_dir():
        raise WrongUsage(
            f"{directory} is not a directory. Give the directory of an instance, or make one: mastodon-gov init."
        )
    sources = Sources(directory)
    for section, name in NAMED_LISTS:
        _names(sources, section, name)
    _keys(sources)
    _trusted_ca(sources)
    read_files(sources, _file)
    instance = _validate(sources)
    check_rules(sources)
    check_organisations(sources)
    check_server(sources, instance)
    refuse([p for document in sources.documents.values() for p in document.problems], FILES)
    if instance is None:
        raise WrongUsage(f"{directory}: the model refuses these files and cannot say why; please report this.")
    return instance


def _names(sources: Sources, section: str, name: str) -> None:
    """Put the addresses of addresses.yaml in the place of names."""
    entries = sources.get(section, name)
    if not isinstance(entries, list):
        return
    values: list[str] = []
    for index, entry in enumerate(entries):
        key: Key = (section, name, index)
        known = sources.known(entry) if isinstance(entry, str) else []
        if is_network(entry):
            values += _plain(sources, key, entry)
        elif known:
            values += map(str, known)
        else:
            kind = "a network such as 192.0.2.0/28" if name == "networks" else "an IP address"
            todo = f"List {show(entry)} in {ADDRESSES}, or write the address here."
            sources.problem(key, show(entry), f"{kind}, or a name that {ADDRESSES} lists", todo)
    sources.replace(section, name, values)


def _plain(sources: Sources, key: Key, entry: str) -> list[str]:
    """The entry, if it is a network that may sign in, or the address of a resolver; otherwise its fault is noted."""
    network = ip_network(entry, strict=False)
    address = network.network_address
    if key[1] == "networks":
        if "/" in entry and not _strict(entry):
            sources.problem(
                key, show(entry), "a network without host bits", f'Write "{network}", if you mean all of it.'
            )
        elif network.prefixlen == 0:
            sources.problem(key, f"{show(entry)}, everybody", "your own networks", "Name the networks you work from.")
        else:
            return [entry]
    elif "/" in entry:
        sources.problem(key, show(entry), "an IP address", "Write the address of one resolver.")
    elif address.is_loopback or address.is_unspecified or address.is_multicast:
        todo = "Write the address of a resolver in your network: on a host itself nothing answers."
        sources.problem(key, show(entry), "the address of another machine", todo)
    else:
        return [entry]
    return []


def _strict(entry: str) -> bool:
    try:
        ip_network(entry)
    except ValueError:
        return False
    return True


def _keys(sources: Sources) -> None:
    """Put the text of .pub files in the place of their names."""
    deploy = sources.get("access", "deploy_keys")
    if isinstance(deploy, list):
        sources.replace("access", "deploy_keys", _key_texts(sources, ("access", "deploy_keys"), deploy))
    auditors = sources.get("access", "auditors")
    if isinstance(auditors, list):
        told = [
            {**person, "keys": _key_texts(sources, ("access", "auditors", place, "keys"), person["keys"])}
            if isinstance(person, dict) and isinstance(person.get("keys"), list)
            else person
            for place, person in enumerate(auditors)
        ]
        sources.replace("access", "auditors", told)


def _key_texts(sources: Sources, key: Key, entries: list[Any]) -> list[Any]:
    values = []
    for index, entry in enumerate(entries):
        if isinstance(entry, str) and entry.endswith(".pub") and " " not in entry:
            text = _file(sources, (*key, index), entry, "Make the key with ssh-keygen, or write it here.")
            values += [text.strip()] if text is not None else []
        else:
            values.append(entry)
    return values


def _trusted_ca(sources: Sources) -> None:
    """Read the certificates of our own authorities."""
    entries = sources.get("network", "trusted_ca_files")
    texts: list[str] = []
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        key: Key = ("network", "trusted_ca_files", index)
        text = _file(sources, key, entry, "Put the certificate there.") if isinstance(entry, str) else None
        if text is None:
            continue
        if "PRIVATE KEY" in text:
            sources.problem(
                key,
                f"a private key in {entry}",
                "certificates only",
                "Take the key out of the file: it goes to every host.",
            )
        elif "-----BEGIN CERTIFICATE-----" not in text:
            sources.problem(key, f"no certificate in {entry}", "a PEM file with certificates", "Convert it to PEM.")
        texts.append(text)
    sources.data["trusted_ca"] = texts


def _file(sources: Sources, key: Key, name: str, todo: str) -> str | None:
    path = sources.directory / name
    if not path.resolve().is_relative_to(sources.directory.resolve()):
        sources.problem(key, show(name), "a file inside the instance directory", "Copy the file there.")
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        sources.problem(key, f"{show(name)}, which cannot be read ({why})", "a file in the instance directory", todo)
        return None


def _validate(sources: Sources) -> Instance | None:
    """The model's own judgement; what it says becomes problems."""
    try:
        return Instance.model_validate(sources.data)
    except ValidationError as errors:
        for error in errors.errors(include_url=False):
            key = _known_part(error["loc"])
            if sources.faulty(key):
                continue
            document, inner = sources.place(key)
            found, allowed, todo = explain(Instance, error, key, document.raw.get(inner))
            sources.problem(key, found, allowed, todo)
        return None


def _known_part(loc: tuple[int | str, ...]) -> Key:
    """pydantic's location without its names for the members of a union and for keys, which are in no file."""
    return tuple(takewhile(lambda part: not str(part).startswith(("lax-or-strict[", "[key]")), loc))
