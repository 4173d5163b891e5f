"""Where a build downloads from. The pins decide what; this only decides from where, so it is no input of the digest."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from mastodon_gov.errors import Refusal
from mastodon_gov.release.pins import Frozen


class Sources(Frozen):
    """Anything not given stays at the client's own default."""

    git_url: str | None = None
    gem_source: str | None = None
    npm_registry: str | None = None
    http_proxy: str | None = None
    ca_file: Path | None = None

    def environment(self, ca_on_builder: str) -> dict[str, str]:
        """Variables of the fetch step, under the names that git, Bundler, npm, Node and OpenSSL read."""
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


def read_sources(path: Path) -> Sources:
    """A small YAML file with any of the keys of `Sources`."""
    try:
        return Sources.model_validate(yaml.safe_load(path.read_text()) or {})
    except (OSError, yaml.YAMLError) as error:
        raise Refusal(f"{path}: it cannot be read as YAML ({error}).") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, part['loc'])) or 'the file'}: {part['msg']}" for part in error.errors())
        raise Refusal(f"{path}: {wrong}. Allowed keys: {', '.join(Sources.model_fields)}.") from error
