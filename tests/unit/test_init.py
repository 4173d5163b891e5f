"""`init` writes a whole directory or none, names what is still to be filled in, and shows no secret."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mastodon_gov import init as verb
from mastodon_gov import secrets
from mastodon_gov.errors import Refusal
from mastodon_gov.instance.load import load
from tests.unit.instance_sample import ed25519

WEB, HANDLE = "social.agency.govt", "agency.govt"
FILLED = {
    "owner.username": "press_office",
    "owner.address": "press@agency.govt",
    "access.networks": "[198.51.100.0/28]",
    "access.deploy_keys": "[deploy_key.pub]",
    "network.resolvers": "[198.51.100.53]",
    "network.time_servers": "[time.agency.govt]",
    "certificates.acme.contact": "press@agency.govt",
    "object_storage.endpoint": "https://s3.agency.govt",
    "object_storage.media_bucket": "social-media",
    "object_storage.backup_bucket": "social-backups",
    "mail.relay": "mail.agency.govt",
    "mail.from_address": "social@agency.govt",
    "organisations[1].name": "The Agency",
}


def run(place: Path, *words: str) -> Result:
    """Run `init`; a refusal is in `exception`."""
    return CliRunner().invoke(verb.init, [WEB, "--directory", str(place), *words])


def test_what_is_left_empty_is_named_and_once_filled_in_the_directory_loads(tmp_path: Path) -> None:
    place = tmp_path / "instance"
    result = run(place, "--handle-domain", HANDLE)
    assert result.exit_code == 0, result.exception
    told = re.findall(r"^(\w+\.yaml), line (\d+), (\S+): found", result.output, re.MULTILINE)
    assert {key for _, _, key in told} == set(FILLED)
    for file, line, key in told:
        lines = (place / file).read_text().splitlines()
        lines[int(line) - 1] = lines[int(line) - 1].split(":")[0] + f": {FILLED[key]}"
        (place / file).write_text("\n".join(lines) + "\n")
    (place / "deploy_key.pub").write_text(ed25519())
    instance = load(place)
    assert (instance.domain.handle, instance.domain.web) == (HANDLE, WEB)
    assert instance.lab is False
    assert instance.staff_domains == (HANDLE,)


def test_the_handle_domain_is_the_web_domain_unless_given(tmp_path: Path) -> None:
    run(tmp_path / "instance")
    assert f"handle: {WEB}\n" in (tmp_path / "instance/instance.yaml").read_text()


def test_no_secret_is_shown_and_the_files_are_private(tmp_path: Path) -> None:
    place = tmp_path / "instance"
    output = run(place).output
    values = secrets.read_values(place, place / "identity.txt")
    identity = (place / "identity.txt").read_text().splitlines()[-1]
    made = [value for name, value in values.items() if name not in secrets.GIVEN]
    assert not [value for value in [*made, identity] if value in output]
    assert all(name in output for name in secrets.GIVEN)
    for name in ("identity.txt", "secrets.age"):
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o600


def test_git_ignores_what_opens_everything(tmp_path: Path) -> None:
    place = tmp_path / "instance"
    run(place)
    for name in ("deploy_key", "known_hosts"):
        (place / name).touch()
    subprocess.run(["git", "init", "-q", str(place)], check=True)
    listed = subprocess.run(
        ["git", "-C", str(place), "ls-files", "-o", "--exclude-standard"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"identity.txt", "deploy_key"} & set(listed)
    assert {"instance.yaml", "secrets.age", "recipients.txt", "known_hosts"} <= set(listed)


def test_given_recipients_make_no_identity(tmp_path: Path) -> None:
    mine, place = tmp_path / "mine.txt", tmp_path / "instance"
    public = secrets.new_identity(mine)
    run(place, "--recipient", f"Jane Doe={public}")
    assert not (place / "identity.txt").exists()
    assert secrets.recipients(place) == [("Jane Doe", public)]
    assert secrets.read_values(place, mine)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--recipient", "age1xyz"], "NAME=age1"),
        (["--recipient", "Jane=age1xyz"], "cannot read"),
        (["--handle-domain", "Agency"], "full host name"),
    ],
)
def test_wrong_input_makes_nothing(tmp_path: Path, words: list[str], says: str) -> None:
    result = run(tmp_path / "instance", *words)
    assert isinstance(result.exception, Refusal)
    assert says in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "instance").mkdir()
    (tmp_path / "instance/notes.txt").write_text("mine")
    result = run(tmp_path / "instance")
    assert "never overwrites" in str(result.exception)
    assert [path.name for path in tmp_path.rglob("*")] == ["instance", "notes.txt"]


def test_a_death_half_way_leaves_nothing_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(secrets, "create", die)
        assert run(tmp_path / "instance").exit_code != 0
    assert not (tmp_path / "instance").exists()
    # What SIGKILL would leave: the draft. The next run starts anew.
    (tmp_path / ".instance.init").mkdir()
    (tmp_path / ".instance.init/identity.txt").write_text("half")
    assert run(tmp_path / "instance").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["instance"]
