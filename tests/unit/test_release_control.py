"""The control node's half of release bundles: reading, signing, bill of materials, recipes, refusals of the verbs."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from mastodon_gov.errors import Refusal
from mastodon_gov.release import pack
from mastodon_gov.release.bundle import Release, lab_key, migration_texts, read_release, sign, verify
from mastodon_gov.release.cli import release as verbs
from mastodon_gov.release.known import known_versions, of_status, standing
from mastodon_gov.release.pins import pins
from mastodon_gov.release.recipe import read_recipe
from mastodon_gov.release.sbom import bill
from mastodon_gov.release.sources import Sources, read_sources

ABOUT = Release(
    name="4.6.5-0123abcd",
    version="4.6.5",
    digest8="0123abcd",
    standin=True,
    commit=None,
    source_digest="0" * 64,
    debian="13",
    arch="amd64",
    epoch=1786018974,
    build_date="2026-08-06T12:22:54+00:00",
    node="24.17.0",
    toolchain={"ruby": "1:3.3+b1"},
    runtime_packages=["ruby"],
)
LOCK = """# This file is generated
__metadata:
  version: 8
"@types/ws@npm:^8": {version: 8.5.1, resolution: "@types/ws@npm:8.5.1", linkType: hard}
"ws@npm:^8": {version: 8.23.0, resolution: "ws@npm:8.23.0", linkType: hard}
"@mastodon/mastodon@workspace:.": {version: 0.0.0, resolution: "@mastodon/mastodon@workspace:.", linkType: soft}
"""
INVENTORY: dict[str, Any] = {
    "gems": ["rack-3.1.20", "nokogiri-1.18.2-x86_64-linux-gnu", "ruby2_keywords-0.0.5", "webpush-9631ac63045c"],
    "npm": [["ws", "8.23.0"], ["@ioredis/commands", "1.5.0"]],
    "node": "24.17.0",
    "yarn_lock": LOCK,
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A signed bundle of one file, with its key and signers beside it."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/Gemfile").write_text("source\n")
    file = tmp_path / ABOUT.file
    pack.pack(tmp_path / "tree", file, ABOUT.model_dump(exclude={"files", "bytes"}), {"bomFormat": "CycloneDX"})
    sign(file, lab_key(tmp_path)[0])
    return file


# --- reading, signing ---


def test_release_is_read_from_the_head_even_of_a_bundle_that_broke_off_later(bundle: Path) -> None:
    about, manifest = read_release(bundle)
    assert about == ABOUT.model_copy(update={"files": 3, "bytes": about.bytes})
    assert manifest == verify(bundle, bundle.parent / "allowed_signers")["manifest_sha256"]


@pytest.mark.parametrize("content", [b"", b"not zstd", b"\x28\xb5\x2f\xfd\x00"])
def test_what_is_no_bundle_is_refused_with_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar.zst").write_bytes(content)
    with pytest.raises(Refusal, match="no release bundle"):
        read_release(tmp_path / "x.tar.zst")


def test_a_package_list_cannot_speak_to_apt(tmp_path: Path) -> None:
    """Whoever made the bundle, before anybody has looked at its signature."""
    (tmp_path / "tree").mkdir()
    harm = ABOUT.model_copy(update={"runtime_packages": ["ruby", "-oDPkg::Pre-Invoke::=id"]})
    file = tmp_path / ABOUT.file
    pack.pack(tmp_path / "tree", file, harm.model_dump(exclude={"files", "bytes"}), {"bomFormat": "CycloneDX"})
    with pytest.raises(Refusal, match="no release bundle"):
        read_release(file)


def test_a_bundle_that_was_cut_off_shows_no_list_of_migrations(tmp_path: Path) -> None:
    """Neither a traceback nor a plan with fewer of them."""
    place = tmp_path / "tree/db/migrate"
    place.mkdir(parents=True)
    (tmp_path / "tree/app").write_bytes(random.Random(1).randbytes(3 << 20))  # noqa: S311  incompressible
    (place / "20260101000000_last.rb").write_text("x")
    file = tmp_path / ABOUT.file
    pack.pack(tmp_path / "tree", file, ABOUT.model_dump(exclude={"files", "bytes"}), {"bomFormat": "CycloneDX"})
    assert list(migration_texts(file, frozenset({"20260101000000"}))) == ["db/migrate/20260101000000_last.rb"]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(Refusal, match="cut off or damaged: the migration 20260101000000"):
        migration_texts(file, frozenset({"20260101000000"}))


def test_verify_refuses_another_ministrys_key(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(Refusal, match="not signed by a key"):
        verify(bundle, lab_key(tmp_path / "other")[1])


def test_the_standins_key_is_made_once_private_and_keeps_other_signers(tmp_path: Path) -> None:
    (tmp_path / "allowed_signers").write_text("ministry ssh-ed25519 AAAA\n")
    key, signers = lab_key(tmp_path)
    first = key.read_bytes(), signers.read_text()
    assert lab_key(tmp_path) == (key, signers)
    assert (key.read_bytes(), signers.read_text()) == first
    assert key.stat().st_mode & 0o777 == 0o600
    assert signers.read_text().startswith("ministry ssh-ed25519 AAAA\nstandin@lab ")


def test_compare_names_what_differs_between_two_bundles(bundle: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(verbs, ["compare", str(bundle), str(bundle)])
    assert (result.exit_code, result.output) == (0, "0 files differ\n")
    (tmp_path / "tree/Gemfile").write_text("other\n")
    (tmp_path / "tree/extra").touch()
    other = tmp_path / "other.tar.zst"
    pack.pack(tmp_path / "tree", other, ABOUT.model_dump(exclude={"files", "bytes"}), {"bomFormat": "CycloneDX"})
    result = CliRunner().invoke(verbs, ["compare", str(bundle), str(other)])
    assert result.exit_code == 1
    assert result.output.splitlines() == ["Gemfile", "RELEASE.json", "extra", "3 files differ"]


# --- bill of materials ---


def test_bill_is_valid_cyclonedx_complete_and_always_the_same() -> None:
    document = bill(ABOUT, INVENTORY, {"ruby": "1:3.3+b1"})
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    assert bill(ABOUT, INVENTORY, {"ruby": "1:3.3+b1"}) == document
    scopes = {part["purl"]: part["scope"] for part in document["components"]}
    assert scopes == {
        "pkg:gem/rack@3.1.20": "required",
        "pkg:gem/nokogiri@1.18.2": "required",
        "pkg:gem/ruby2_keywords@0.0.5": "required",
        "pkg:gem/webpush@9631ac63045c": "required",
        "pkg:npm/ws@8.23.0": "required",
        "pkg:npm/%40ioredis/commands@1.5.0": "required",
        "pkg:npm/%40types/ws@8.5.1": "optional",
        "pkg:deb/debian/ruby@1:3.3%2Bb1": "required",
        "pkg:generic/node@24.17.0": "required",
    }
    assert document["metadata"]["component"]["name"] == "mastodon-standin"


# --- known versions ---

TODAY = date(2026, 8, 10)


@pytest.mark.parametrize(
    ("version", "behind", "advisory", "days", "says"),
    [
        ("4.6.5", 0, None, None, "4.6.5 is the newest of its series. The list is of 2026-08-06."),
        ("4.6.4", 1, None, None, "4.6.4 is behind by 1 (4.6.5), security: no."),
        (
            "4.6.2",
            3,
            "2026-07-03",
            38,
            "4.6.2 is behind by 3 (4.6.5), security: yes, advisory of 2026-07-03, 38 days (",
        ),
        ("4.5.15", 0, None, None, "4.5.15 is the newest of its series; the newest series has 4.6.5."),
    ],
)
def test_how_far_behind_counts_in_the_series_and_from_the_oldest_advisory(
    version: str, behind: int, advisory: str | None, days: int | None, says: str
) -> None:
    found = standing(version, known_versions(), TODAY)
    assert (found.behind, found.advisory, found.advisory_days) == (behind, advisory, days)
    assert found.sentence().startswith(says)


def test_every_pinned_version_is_known_and_an_unknown_one_is_refused() -> None:
    assert set(pins().known()) <= set(known_versions().versions)
    with pytest.raises(Refusal, match=r"does not know Mastodon 4\.9\.9, only 4\.6\.5, 4\.6\.4"):
        standing("4.9.9", known_versions(), TODAY)
    old = standing("4.6.5", known_versions(), date(2026, 10, 10)).sentence()
    assert old.endswith("The list is of 2026-08-06, 65 days old: carry in a newer one.")


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    """A newer list in an instance's directory, signed by a key the instance trusts."""
    file = tmp_path / "known_versions.yaml"
    file.write_text(
        "as_of: 2026-09-01\nversions:\n  4.6.5: {date: 2026-08-06}\n"
        "  4.6.6: {date: 2026-08-20, security: [GHSA-invented]}\n"
    )
    key, signers = lab_key(tmp_path)
    signers.rename(tmp_path / "release_signers")
    sign(file, key)
    return file


def test_a_newer_signed_list_counts_and_status_reports_the_advisory(carried: Path) -> None:
    assert standing("4.6.5", known_versions(carried.parent), date(2026, 9, 2)).advisory_days == 13
    result = CliRunner().invoke(verbs, ["check", "4.6.5", "--json"], obj=carried.parent)
    assert result.exit_code == 1
    assert json.loads(result.output)["advisories"] == ["GHSA-invented"]
    slots = {
        "kinds": {"web": {"a": {"active": False, "release": None}, "b": {"active": True, "release": "4.6.5-01ab"}}}
    }
    seen = of_status({"slots": slots}, carried.parent)
    assert (seen["behind"], seen["advisory"]) == (1, "2026-08-20")


def cut_off_signature(file: Path) -> None:
    file.with_name(file.name + ".sig").unlink()


def claim_newest(file: Path) -> None:
    file.write_text(file.read_text().replace("2026-08-20", "2026-08-21"))


def sign_as_a_stranger(file: Path) -> None:
    (file.parent / "stranger").mkdir()
    sign(file, lab_key(file.parent / "stranger")[0])


def grow_old(file: Path) -> None:
    file.write_text(file.read_text().replace("2026-09-01", "2026-01-01"))
    sign(file, file.parent / "standin-key")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (cut_off_signature, "signature .* is missing"),
        (claim_newest, "does not cover this file"),
        (sign_as_a_stranger, "not signed by a key"),
        (grow_old, "this list is of 2026-01-01"),
    ],
)
def test_a_list_that_cannot_be_trusted_is_refused(carried: Path, harm: Callable[[Path], None], says: str) -> None:
    harm(carried)
    with pytest.raises(Refusal, match=says):
        known_versions(None, carried, carried.parent / "release_signers")


# --- recipes and sources ---


def recipe_in(directory: Path) -> Path:
    """A recipe of three files."""
    directory.mkdir(parents=True)
    (directory / "assemble").write_text("#!/bin/sh\n")
    (directory / "assemble").chmod(0o755)
    (directory / "build-packages.txt").write_text("ruby # interpreter\n\n# comment\nbundler\n")
    (directory / "runtime-packages.txt").write_text("ruby\n")
    return directory


def test_recipes_digest_follows_content_mode_and_name_but_not_time_or_place(tmp_path: Path) -> None:
    one, two = (recipe_in(tmp_path / name / "r") for name in ("one", "two"))
    digest = read_recipe(one, standin=True).digest()
    assert read_recipe(two, standin=True).digest() == digest
    assert read_recipe(one, standin=True).packages("build") == ["bundler", "ruby"]
    (two / "assemble").chmod(0o644)
    assert read_recipe(two, standin=True).digest() != digest
    (one / "link").symlink_to("assemble")
    assert read_recipe(one, standin=True).digest() != digest


def test_a_directory_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    (recipe_in(tmp_path / "r") / "assemble").unlink()
    with pytest.raises(Refusal, match="it lacks assemble"):
        read_recipe(tmp_path / "r", standin=True)


def test_sources_become_variables_only_when_given(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"npm_registry: https://npm.agency.test/\nca_file: {tmp_path}/ca.pem\n")
    given = read_sources(tmp_path / "s.yaml").environment("/work/ca.pem")
    assert given["npm_config_registry"] == "https://npm.agency.test/"
    assert given["NODE_EXTRA_CA_CERTS"] == "/work/ca.pem"
    assert "http_proxy" not in given
    assert Sources().environment("/work/ca.pem") == {}
    (tmp_path / "s.yaml").write_text("npm: x\n")
    with pytest.raises(Refusal, match=r"npm.*Allowed keys: git_url"):
        read_sources(tmp_path / "s.yaml")


# --- the verbs ---


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["build", "4.6.4", "--standin"], r"4\.6\.4 is not known"),
        (["build", "4.6.5"], "say what to build"),
        (["build", "4.6.5", "--standin", "--recipe", "."], "say what to build"),
        (["build", "4.6.5", "--recipe", "RECIPE"], "ministry's key"),
        (["build", "4.6.5", "--recipe", "FETCHING", "--key", "."], "wants the application's source"),
    ],
)
def test_build_refuses_before_it_starts_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], says: str
) -> None:
    monkeypatch.setattr("mastodon_gov.release.cli.builder", lambda *_: pytest.fail("a machine was started"))
    (recipe_in(tmp_path / "f") / "fetch.yaml").write_text("locks: [Gemfile.lock]\n")
    known = {"RECIPE": str(recipe_in(tmp_path / "r")), "FETCHING": str(tmp_path / "f")}
    argv = [known.get(word, word) for word in argv]
    result = CliRunner().invoke(verbs, argv)
    with pytest.raises(Refusal, match=says):
        raise result.exception or AssertionError(result.output)


def test_list_names_bundles_and_known_versions(bundle: Path) -> None:
    result = CliRunner().invoke(verbs, ["list", "--bundles", str(bundle.parent)])
    assert f"{bundle.name}  {ABOUT.name}  stand-in" in result.output
    assert result.output.strip().endswith(", ".join(pins().known()))


def test_verify_verb_prints_only_json(bundle: Path) -> None:
    result = CliRunner().invoke(verbs, ["verify", str(bundle), "--signers", str(bundle.parent / "allowed_signers")])
    assert json.loads(result.output)["name"] == ABOUT.name


def test_packing_needs_only_the_standard_library(tmp_path: Path) -> None:
    """The builder has Debian's Python and nothing else."""
    argv = ["python3", "-I", "-S", pack.__file__, "inventory", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["gems"] == []
