"""The bill of materials of a release: gems, npm packages, Node, Debian's runtime packages (CycloneDX 1.6)."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import yaml
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from mastodon_gov.release.bundle import Release

# name-version[-platform], as RubyGems names its specifications
GEM = re.compile(r"(?P<name>.+?)-(?P<version>\d[\w.]*|[0-9a-f]{12})(-(?P<platform>.+))?")
RESOLUTION = re.compile(r"(?P<name>@?[^@]+)@npm:(?P<version>[\w.+-]+)")


def bill(release: Release, inventory: dict[str, Any], debian: dict[str, str]) -> dict[str, Any]:
    """The document as JSON data. `inventory` comes from pack.py, `debian` is package -> version.

    What yarn.lock names beyond the shipped modules is `optional`: parts of it are compiled into the assets, and
    nobody can tell which.
    """
    shipped = {(name, version) for name, version in inventory["npm"]}
    locked = set(locked_npm(inventory["yarn_lock"])) - shipped
    parts = [*map(gem, inventory["gems"])]
    parts += [npm(name, version, ComponentScope.REQUIRED) for name, version in shipped]
    parts += [npm(name, version, ComponentScope.OPTIONAL) for name, version in locked]
    parts += [component("deb", name, version, namespace="debian") for name, version in debian.items()]
    if inventory["node"]:
        parts.append(component("generic", "node", inventory["node"]))
    about = "mastodon-standin" if release.standin else "mastodon"
    root = Component(name=about, version=release.version, type=ComponentType.APPLICATION, bom_ref=release.name)
    metadata = BomMetaData(timestamp=datetime.fromtimestamp(release.epoch, UTC), component=root)
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"{about}:{release.name}:{release.arch}")
    bom = Bom(components=parts, metadata=metadata, serial_number=serial)
    bom.register_dependency(root, parts)
    document: dict[str, Any] = json.loads(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string())
    return document


def gem(full_name: str) -> Component:
    """A gem from the name of its specification."""
    found = GEM.fullmatch(full_name)
    return component("gem", found["name"], found["version"]) if found else component("gem", full_name, "")


def npm(full_name: str, version: str, scope: ComponentScope) -> Component:
    """An npm package, scoped or not."""
    namespace, _, name = full_name.rpartition("/")
    return component("npm", name, version, namespace=namespace or None, scope=scope)


def component(
    kind: str,
    name: str,
    version: str,
    namespace: str | None = None,
    scope: ComponentScope = ComponentScope.REQUIRED,
) -> Component:
    """One library, referred to by its package URL."""
    purl = PackageURL(kind, namespace, name, version or None)
    return Component(name=name, group=namespace, version=version or None, purl=purl, bom_ref=str(purl), scope=scope)


def locked_npm(yarn_lock: str | None) -> Iterable[tuple[str, str]]:
    """Name and version of every npm package in a yarn 2+ lock file (YAML)."""
    for entry in yaml.safe_load(yarn_lock).values() if yarn_lock else ():
        if found := RESOLUTION.match(entry.get("resolution", "")):
            yield found["name"], found["version"]
