"""Every wrong instance directory gets its sentence, all at once, and nobody is called."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance, document
from mastodon_gov.instance.immutable import domain_refusal
from mastodon_gov.instance.load import load
from tests.unit.instance_sample import forbid_connections, good_directory
from tests.unit.wrong_instances import WRONG, Wrong

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = re.compile(
    r"^(?P<file>[a-z]+\.yaml), line (?P<line>\d+)(, (?P<key>[^:]+))?: found .+\. Allowed: .+\. .+[.?]$"
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A good instance directory, free to be broken."""
    return good_directory(tmp_path / "instance")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt to reach anything fails the test."""
    forbid_connections(monkeypatch)


def sentences(directory: Path) -> list[re.Match[str]]:
    """What load says, each sentence taken apart."""
    with pytest.raises(Refusal) as refusal:
        load(directory)
    matches = [SENTENCE.match(line) for line in str(refusal.value).splitlines()]
    assert all(matches), str(refusal.value)
    return [match for match in matches if match]


def said_by(directory: Path) -> str:
    """What load says, if it refuses."""
    try:
        load(directory)
    except Refusal as refusal:
        return str(refusal)
    return ""


def change(directory: Path, file: str, old: str, new: str) -> list[str]:
    """Replace text in a file; returns its lines."""
    path = directory / file
    text = path.read_text()
    assert old in text, f"{file} has no {old!r}: the test is out of date"
    path.write_text(text.replace(old, new, 1))
    return path.read_text().splitlines()


def test_good_directory_is_read(directory: Path) -> None:
    instance = load(directory)
    assert instance.domain.web == "social.agency.test"
    assert [str(network) for network in instance.access.networks] == ["10.99.0.1/32", "fd00:99::1/128"]
    assert [str(address) for address in instance.network.resolvers] == ["10.99.0.12", "fd00:99::12"]
    assert instance.access.deploy_keys == ((directory / "deploy_key.pub").read_text().strip(),)
    assert instance.trusted_ca == ((directory / "lab-ca.pem").read_text(),)
    assert instance.staff_domains == ("agency.test", "council.test")


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_wrong_file_gets_its_sentence(directory: Path, wrong: Wrong) -> None:
    lines = change(directory, wrong.file, wrong.old, wrong.new)
    found = sentences(directory)
    mine = [match for match in found if match["file"] == wrong.file and (match["key"] or "") == wrong.key]
    assert len(mine) == 1, "\n".join(match[0] for match in found)
    for fragment in wrong.says:
        assert fragment in mine[0][0]
    assert wrong.at in lines[int(mine[0]["line"]) - 1]


def test_there_are_enough_wrong_files() -> None:
    assert len({wrong.name for wrong in WRONG}) == len(WRONG) >= 40


def test_all_faults_are_told_in_the_order_of_files_and_lines(directory: Path) -> None:
    chosen = {
        "port: 587": "port: 0",
        "\nlab: true": "\nlab: maybe",
        "networks: [control]": "networks: [nowhere]",
        "username: owner": "username: Owner",
    }
    for old, new in chosen.items():
        change(directory, "instance.yaml", old, new)
    change(directory, "organisations.yaml", "id: agency", "id: 7")
    change(directory, "addresses.yaml", "10.99.0.11", "10.99.0.999")
    found = [(match["file"], int(match["line"]), match["key"]) for match in sentences(directory)]
    keys = ["lab", "owner.username", "access.networks[1]", "mail.port", "organisations[1].id", "social[1]"]
    assert [key for _, _, key in found] == keys
    for file in {file for file, _, _ in found}:
        lines = [line for name, line, _ in found if name == file]
        assert lines == sorted(lines)


def test_a_name_only_the_own_network_knows(directory: Path) -> None:
    change(directory, "instance.yaml", "\nlab: true", "\nlab: false")
    change(directory, "instance.yaml", "handle: agency.test", "handle: agency.internal")
    told = {match["key"]: match[0] for match in sentences(directory)}
    assert "public DNS" in told["domain.handle"]
    assert "reserved" in told["organisations[1].domains[1]"]


def test_one_fault_gives_one_sentence(directory: Path) -> None:
    change(directory, "instance.yaml", "web: social.agency.test", "web: Social.agency.test")
    assert [match["key"] for match in sentences(directory)] == ["domain.web"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "found nothing"),
        (b"- a\n- b\n", "a list with 2 entries"),
        (b"just text\n", '"just text"'),
        (b"\xff\xfe\x00a", "not UTF-8"),
        (b"format: 1\nlab: \x07\n", "control character"),
        (b"format: 1\n---\nformat: 1\n", "document"),
    ],
)
def test_a_file_that_is_no_mapping(directory: Path, content: bytes, says: str) -> None:
    (directory / "organisations.yaml").write_bytes(content)
    found = sentences(directory)
    assert [match["file"] for match in found] == ["organisations.yaml"]
    assert says in found[0][0]


@pytest.mark.parametrize("name", ["instance.yaml", "organisations.yaml"])
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    assert [match[0] for match in sentences(directory) if match["file"] == name and "no such file" in match[0]]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="is not a directory"):
        load(tmp_path / "nowhere")


def test_a_private_key_is_never_shown(directory: Path) -> None:
    (directory / "lab-ca.pem").write_text(
        "-----BEGIN PRIVATE KEY-----\nc2VlZGVkLXNlY3JldA==\n-----END PRIVATE KEY-----\n"
    )
    text = "\n".join(match[0] for match in sentences(directory))
    assert "network.trusted_ca_files[1]" in text
    assert "c2VlZGVk" not in text


@pytest.mark.parametrize(("written", "read"), [("no", "no"), ("on", None), ("NO", None)])
def test_norwegian_is_a_language(directory: Path, written: str, read: str | None) -> None:
    """YAML 1.1 reads `no` as false; here it is the two letters."""
    change(directory, "instance.yaml", "keep_full: 2", f"keep_full: 2\nmastodon:\n  default_locale: {written}")
    if written == "NO":
        assert [match["key"] for match in sentences(directory)] == ["mastodon.default_locale"]
    else:
        assert load(directory).mastodon.default_locale == (read or written)


def test_clock_times_stay_text(directory: Path) -> None:
    """YAML 1.1 reads 12:30 as 750 and 010 as 8."""
    change(directory, "instance.yaml", "keep_full: 2", "full_at: 12:30")
    change(directory, "organisations.yaml", "name: Agency for Demonstrations", "name: '010'")
    instance = load(directory)
    assert instance.backups.full_at == "12:30"
    assert instance.organisations[0].name == "010"


def _places(value: Any, key: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a tree."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, below in inner:
        yield (*key, part)
        yield from _places(below, (*key, part))


@pytest.mark.parametrize("junk", [None, 7, [], {"a": 1}], ids=str)
@pytest.mark.parametrize("file", ["instance.yaml", "organisations.yaml"])
def test_whatever_stands_in_a_place_the_answer_is_a_sentence(directory: Path, file: str, junk: object) -> None:
    good = (directory / file).read_text()
    for *above, last in _places(yaml.safe_load(good)):
        tree = yaml.safe_load(good)
        place = tree
        for part in above:
            place = place[part]
        place[last] = junk
        (directory / file).write_text(yaml.safe_dump(tree))
        said = said_by(directory)
        assert all(SENTENCE.match(line) for line in said.splitlines()), said


def test_addresses_may_be_left_out_where_nothing_is_private(directory: Path) -> None:
    (directory / "addresses.yaml").unlink()
    keys = [match["key"] for match in sentences(directory)]
    assert keys == [
        "access.networks[1]",
        "network.resolvers[1]",
        "certificates.acme.directory",
        "object_storage.endpoint",
        "mail.relay",
    ]


@pytest.mark.parametrize("wrong", WRONG[:1], ids=lambda wrong: wrong.name)
def test_pyinfra_ends_with_the_sentence_and_no_traceback(directory: Path, wrong: Wrong) -> None:
    change(directory, wrong.file, wrong.old, wrong.new)
    command = [sys.executable, "-m", "pyinfra", str(directory / "inventory.py"), "debug-inventory"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Did you mean release?" in done.stderr
    assert "Traceback" not in done.stderr


def test_domains_never_change(directory: Path) -> None:
    instance = load(directory)
    same = ("agency.test", "social.agency.test", "social.agency.test")
    assert domain_refusal(instance, None, None, None) is None
    assert domain_refusal(instance, *same) is None
    for place, key in enumerate(("handle", "web", "web")):
        recorded = list(same)
        recorded[place] = "old.agency.test"
        sentence = domain_refusal(instance, *recorded)
        assert sentence is not None
        assert f"domain.{key}" in sentence
        assert "old.agency.test" in sentence


def test_every_setting_says_what_it_means() -> None:
    def unexplained(model: type, prefix: str) -> list[str]:
        missing = []
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]  # always a pydantic model
            inner = [
                t for t in (field.annotation, *getattr(field.annotation, "__args__", ())) if hasattr(t, "model_fields")
            ]
            for part in inner:
                missing += unexplained(part, f"{prefix}{name}.")
            if not inner and not field.description:
                missing.append(prefix + name)
        return missing

    assert unexplained(Instance, "") == ["addresses", "trusted_ca", "server_files"]


def test_the_page_of_settings_is_in_step_with_the_model() -> None:
    page = document.PAGE.read_text()
    assert document.updated(page) == page, "run: python -m mastodon_gov.instance.document"
    settings = set(re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE))
    assert {"domain.handle", "mail.port", "access.administrators.keys", "certificates.acme.directory"} <= settings
    assert "another value" not in page
