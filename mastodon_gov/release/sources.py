"""Where a build downloads from. The pins decide what; this only decides from where, so it is no input of the digest.

The exception are `overrides` and `node_archive`, which name other content: they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from mastodon_gov.errors import Refusal
from mastodon_gov.release.pins import Frozen

Url = Annotated[str, Field(pattern=r"^(https?|file|ssh|git)://")]
Integrity = Annotated[str, Field(pattern=r"^sha(256|384|512)-[A-Za-z0-9+/]+=*$")]


class Archive(Frozen):
    """A file somewhere else, with its integrity as npm writes it."""

    url: Url
    integrity: Integrity | None = None


class Sources(Frozen):
    """Anything not given stays at the client's own default."""

    git_url: str | None = None
    gem_source: Url | None = None
    npm_registry: Url | None = None
    http_proxy: str | None = None
    ca_file: Path | None = None
    node_archive: Archive | None = None
    offline_dir: Path | None = None
    overrides: dict[str, Archive | Literal["skip"]] = Field(default_factory=dict)

    def environment(self, ca_on_builder: str) -> dict[str, str]:
        """Variables of the fetch step, under the names that git, Bundler, npm, Node, Python and OpenSSL read."""
        ca = ca_on_builder if self.ca_file else None
        wanted = {
            "MASTODON_GIT_URL": self.git_url,
            "BUNDLE_MIRROR__ALL": self.gem_source,
            "npm_config_registry": self.npm_registry,
            "http_proxy": self.http_proxy,
            "https_proxy": self.http_proxy,
            **dict.fromkeys(("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "GIT_SSL_CAINFO", "npm_config_cafile"), ca),
        }
        return {name: value for name, value in wanted.items() if value}

    def other_content(self) -> dict[str, Any]:
        """What makes a release another one: part of its digest. Empty when everything is as pinned."""
        other: dict[str, Any] = {what: _plain(where) for what, where in self.overrides.items()}
        return other | ({"node": _plain(self.node_archive)} if self.node_archive else {})

    def job(self) -> dict[str, Any]:
        """This part of the fetch program's job."""
        return {
            "git_url": self.git_url,
            "gem_source": self.gem_source or "https://rubygems.org/",
            "npm_registry": self.npm_registry or "https://registry.npmjs.org/",
            "overrides": {what: _plain(where) for what, where in self.overrides.items()},
            "offline": self.offline_dir is not None,
        }


def _plain(where: Archive | Literal["skip"]) -> Any:
    return where if where == "skip" else where.model_dump(exclude_none=True)


def read_sources(path: Path) -> Sources:
    """A small YAML file with any of the keys of `Sources`. An override of a package needs its integrity."""
    try:
        sources = Sources.model_validate(yaml.safe_load(path.read_text()) or {})
    except (OSError, yaml.YAMLError) as error:
        raise Refusal(f"{path}: it cannot be read as YAML ({error}).") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, part['loc'])) or 'the file'}: {part['msg']}" for part in error.errors())
        raise Refusal(f"{path}: {wrong}. Allowed keys: {', '.join(Sources.model_fields)}.") from error
    for what, where in sources.overrides.items():
        if not re.fullmatch(r"(gem|npm|node) \S+( \S+)?", what):
            raise Refusal(f"{path}: overrides: {what!r} names nothing; write 'gem NAME VERSION' or 'npm NAME VERSION'.")
        if where != "skip" and not where.integrity and what.count(" ") == 2:
            raise Refusal(f"{path}: overrides: {what!r} needs `integrity: sha512-…`, so that it is pinned too.")
    return sources
