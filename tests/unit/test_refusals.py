"""What the command line makes of a refusal: every sentence, its exit code, one JSON document, and no connection."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mastodon_gov import check, deploying, inventory, remote, runner, secrets
from mastodon_gov.cli import main
from mastodon_gov.errors import Refusal, Unreachable, WrongUsage
from mastodon_gov.findings import FAIL, OK, Finding, blind
from mastodon_gov.instance.load import load
from tests.unit.instance_sample import forbid_connections, good_directory
from tests.unit.test_inventory import BUNDLE, GIVEN
from tests.unit.wrong_instances import WRONG, Wrong

VERBS = ("check", "plan", "deploy")
INVENTORY = "from mastodon_gov.inventory import groups\nglobals().update(groups(__file__, {}))\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A good instance directory, free to be broken."""
    return good_directory(tmp_path / "instance")


@pytest.fixture
def complete(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With secrets, and a release whose archive nobody opens."""
    for module in (inventory, check):
        monkeypatch.setattr(module, "selected", lambda *_: BUNDLE)
    monkeypatch.delenv("MASTODON_GOV_IDENTITY", raising=False)
    public = secrets.new_identity(directory / "identity.txt")
    (directory / "recipients.txt").write_text(f"# test\n{public}\n")
    secrets.create(directory, GIVEN)
    return directory


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a connection nor another program, such as ssh or pyinfra, which could open one."""
    forbid_connections(monkeypatch)
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda *_, **__: pytest.fail("another program was started"))


def run(directory: Path, *words: str) -> Result:
    """A verb as a program would call it."""
    return CliRunner().invoke(main, ["--instance", str(directory), *words])


def refused(result: Result) -> list[str]:
    """The sentences: the same for people on stderr as in the one JSON document on stdout."""
    told: list[str] = json.loads(result.stdout)["refused"]
    assert result.stderr.splitlines() == told
    return told


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
@pytest.mark.usefixtures("alone")
def test_a_wrong_file_is_told_whole_by_every_verb(directory: Path, wrong: Wrong) -> None:
    path = directory / wrong.file
    path.write_text(path.read_text().replace(wrong.old, wrong.new, 1))
    with pytest.raises(Refusal) as refusal:
        load(directory)
    for verb in VERBS:
        result = run(directory, verb, "--json")
        assert (result.exit_code, refused(result)) == (2, str(refusal.value).splitlines())


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.usefixtures("alone")
def test_a_list_of_sentences_is_never_cut(directory: Path, verb: str) -> None:
    path = directory / "organisations.yaml"
    body = "  - id: {0}\n    name: Body {0}\n    domains: [no.{0}@x]\n"
    path.write_text("format: 1\norganisations:\n" + "".join(body.format(number) for number in range(30)))
    result = run(directory, verb)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sum("domains[1]" in line for line in result.stderr.splitlines()) == 30


@pytest.mark.parametrize("verb", [*VERBS, "status"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "inventory.py does not exist"),
        ("x = (\n", "inventory.py, line 1: found SyntaxError: '(' was never closed"),
        ("\nimport nosuch\n", "inventory.py, line 2: found ModuleNotFoundError: No module named 'nosuch'"),
        (f"{INVENTORY}\n1 / 0\n", "inventory.py, line 4: found ZeroDivisionError"),
        ("database = ['social']\nmastodon = ['social']\n", "found ValueError"),
    ],
)
@pytest.mark.usefixtures("alone")
def test_an_inventory_that_does_not_run_is_a_sentence(complete: Path, verb: str, text: str | None, says: str) -> None:
    path = complete / "inventory.py"
    path.unlink() if text is None else path.write_text(text)
    result = run(complete, verb, "--json")
    (sentence,) = refused(result)
    assert result.exit_code == 2
    assert says in sentence


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("hosts", "says"),
    [
        ("{'databse': ['social']}", "found the group databse"),
        ("{'database': 'social'}", 'Write ["social"]'),
    ],
)
@pytest.mark.usefixtures("alone")
def test_hosts_that_are_wrongly_written_are_a_sentence(complete: Path, verb: str, hosts: str, says: str) -> None:
    (complete / "inventory.py").write_text(INVENTORY.replace("{}", hosts))
    result = run(complete, verb, "--json")
    (sentence,) = refused(result)
    assert result.exit_code == 2
    assert says in sentence


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.usefixtures("alone")
def test_secrets_that_cannot_be_read_are_a_sentence(complete: Path, verb: str) -> None:
    (complete / "secrets.age").write_text("no secrets")
    result = run(complete, verb, "--json")
    assert result.exit_code == 2
    assert "cannot be decrypted" in refused(result)[0]
    (complete / "secrets.age").unlink()
    assert "secrets.age does not exist" in refused(run(complete, verb, "--json"))[0]


@pytest.mark.parametrize("verb", ["plan", "deploy"])
@pytest.mark.parametrize(
    ("limit", "code", "says"),
    [
        ("social,redis", 2, "Run it once for each"),
        ("nosuch", 4, "--limit nosuch fits no host"),
        ("soc", 4, "fits no host"),
    ],
)
@pytest.mark.usefixtures("alone")
def test_a_limit_that_pyinfra_would_not_take_is_refused(
    complete: Path, verb: str, limit: str, code: int, says: str
) -> None:
    result = run(complete, verb, "--json", "--limit", limit)
    assert result.exit_code == code
    assert says in refused(result)[0]


def test_a_limit_is_a_group_or_names(complete: Path) -> None:
    (complete / "inventory.py").write_text(INVENTORY.replace("{}", "{'database': ['one'], 'redis': ['one']}"))
    taken = {limit: [node.name for node in inventory.nodes(complete, limit)] for limit in ("redis", "o?e", "one")}
    assert [*taken.values()] == [["one"]] * 3
    for other in ("mastodon", "two", "t*"):
        with pytest.raises(Refusal, match="fits no host"):
            inventory.nodes(complete, other)


@pytest.mark.parametrize("verb", [*VERBS, "status"])
@pytest.mark.usefixtures("alone")
def test_an_inventory_without_hosts_is_no_success(complete: Path, verb: str) -> None:
    (complete / "inventory.py").write_text(INVENTORY)
    result = run(complete, verb, "--json")
    assert result.exit_code == 4
    assert "names no host" in refused(result)[0]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """ssh finds nobody; what needs no host is in order."""
    answer = subprocess.CompletedProcess([], remote.UNREACHABLE, "", "No route to host")
    monkeypatch.setattr(check, "_release", lambda _: Finding(check.HERE, "release", OK, "", ""))
    monkeypatch.setattr(check, "_storage", lambda _: [])
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", lambda *_, **__: answer)
        yield


@pytest.mark.parametrize("verb", ["deploy", "status"])
@pytest.mark.usefixtures("away")
def test_a_host_that_is_away_is_no_failure_of_its_own(complete: Path, verb: str) -> None:
    result = run(complete, verb, "--json")
    assert result.exit_code == 4
    assert "No route to host" in refused(result)[0]


@pytest.mark.usefixtures("away")
def test_check_says_which_host_is_away(complete: Path) -> None:
    result = run(complete, "check", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["ok"]) == (4, False)
    assert [each["state"] for each in told["findings"] if each["host"] == "social"] == ["could not look"]


def test_no_host_was_reached_only_when_none_was() -> None:
    away, here = blind("db", check.CONNECTION, "No route to host"), Finding("app", "disk", OK, "room", "room")
    broken = Finding(check.HERE, "release", FAIL, "none", "one")
    assert [check.code_of(found) for found in ([away], [away, broken], [away, here], [broken], [here])] == [
        4,
        4,
        1,
        1,
        0,
    ]


CONNECTING = """\
--> Loading inventory...
--> Connecting to hosts...
    [social] Could not connect ([Errno None] Unable to connect to port 22 on 192.0.2.9)
--> pyinfra error: No hosts remaining!
"""


def test_a_plan_that_reached_nobody_says_so() -> None:
    with pytest.raises(Unreachable, match="Unable to connect to port 22"):
        runner._read("", CONNECTING, 1)
    with pytest.raises(Refusal) as refusal:
        runner._read("", CONNECTING.replace("    [social]", "    [other] Connected\n    [social]"), 1)
    assert refusal.value.code == 1


def test_sentences_of_the_inventory_come_whole_out_of_pyinfra() -> None:
    sentences = [f"instance.yaml, line {number}" for number in range(40)]
    with pytest.raises(WrongUsage) as refusal:
        runner._read("", "\n".join(sentences) + "\n", 2)
    assert str(refusal.value).splitlines() == sentences


@pytest.mark.parametrize(
    ("failed", "hosts", "code"), [((), 0, 4), (("social",), 0, 4), (("social",), 1, 1), ((), 1, 0)]
)
def test_a_run_without_hosts_is_no_success(failed: tuple[str, ...], hosts: int, code: int) -> None:
    assert deploying._end(runner.Run((), failed, hosts, 0, 0.0, ""), True, "deploy") == code
