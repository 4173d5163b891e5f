"""The proxy's configuration as text: what must hold in every rendering. How nginx behaves: tests/lab/test_proxy.py."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import date
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest

from roles.lib.files import ManagedFile
from roles.nginx.role import CONFIG, ERRORS, NGINX, REFUSALS, SHARE, expires, files
from tests.unit.storage_sample import node, storage


def written(**changes: object) -> dict[str, ManagedFile]:
    return {entry.path: entry for entry in files(node(**changes)) if isinstance(entry, ManagedFile)}


def config(**changes: object) -> str:
    return written(**changes)[CONFIG].content


def block(text: str, start: str) -> str:
    """From `start` to the brace that closes it."""
    begin = text.index(start)
    depth, at = 0, text.index("{", begin)
    while True:
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
        if not depth:
            return text[begin:at]


def server(text: str, name: str) -> str:
    """The TLS server of a name."""
    blocks = [block(text[match.start() :], "server {") for match in re.finditer(r"\n    server \{", text)]
    return next(each for each in blocks if f"server_name {name};" in each and "listen 443" in each)


def test_headers_are_added_at_one_level_only() -> None:
    # An add_header in a server or location would silently drop every security header there.
    text = config()
    assert text.count("add_header") > 5
    assert [line for line in text.splitlines() if re.match(r"\s{5,}add_header", line)] == []


def test_the_policy_allows_the_style_of_our_pages_and_nothing_else() -> None:
    page = written()[f"{SHARE}/errors/502.html"].content
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style
    digest = b64encode(sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in config()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("name", [*map(str, ERRORS), *REFUSALS])
def test_pages_are_accessible_and_load_nothing(name: str) -> None:
    page = _Page()
    page.feed(written()[f"{SHARE}/errors/{name}.html"].content)
    tags = dict(page.tags)
    assert tags["html"]["lang"] == "en"
    assert {"title", "h1", "main"} <= tags.keys()
    assert [tag for tag, attributes in page.tags if {"src", "href", "style"} & attributes.keys()] == []


def test_every_page_that_nginx_is_told_to_show_exists() -> None:
    shown = set(re.findall(r"/mfg-errors/(\w+)\.html", config()))
    assert shown == {path.stem for path in map(Path, written()) if path.parent.name == "errors"}


def test_both_slots_of_both_kinds_are_asked_and_never_put_aside() -> None:
    text = config()
    for upstream, ports in (("mastodon_web", (3000, 3001)), ("mastodon_streaming", (4000, 4001))):
        servers = re.findall(r"server 127\.0\.0\.1:(\d+) max_fails=0;", block(text, f"upstream {upstream} "))
        assert tuple(map(int, servers)) == ports
    assert "non_idempotent" not in text


def test_only_administrators_networks_see_the_inside() -> None:
    text = config(access={"networks": ["192.0.2.0/28", "2001:db8::/64"], "deploy_keys": ["ssh-ed25519 AAAA"]})
    assert block(text, "geo $from_admin").split() == (
        "geo $from_admin { default 0; 192.0.2.0/28 1; 2001:db8::/64 1; }".split()
    )
    for path in ("/metrics", "/sidekiq", "/pghero"):
        assert "if ($from_admin = 0)" in block(server(text, "social.agency.test"), f"location ^~ {path} ")


@pytest.mark.parametrize(
    ("endpoint", "origin", "name"),
    [
        ("https://s3.world.test:8443", "https://s3.world.test:8443/media$media_key", "s3.world.test"),
        ("https://s3.agency.test", "https://s3.agency.test/media$media_key", "s3.agency.test"),
    ],
)
def test_media_come_from_the_bucket_over_verified_tls(endpoint: str, origin: str, name: str) -> None:
    media = server(config(object_storage=storage(endpoint=endpoint)), "files.social.agency.test")
    assert f"proxy_pass {origin};" in media
    assert f"proxy_ssl_name {name};" in media
    assert "proxy_ssl_verify on;" in media


@pytest.mark.parametrize(
    ("request_uri", "key"),
    [
        ("/media_attachments/files/1/original/a_b-c.png", "/media_attachments/files/1/original/a_b-c.png"),
        ("/a.png?list-type=2", "/a.png"),
        ("/", ""),
        ("/folder/", ""),
        ("/?list-type=2", ""),
        ("/%3Flist-type=2", ""),
        ("/../backups/x", ""),
        ("/a/%2e%2e/b", ""),
        ("/a//b", ""),
        ("/.hidden", ""),
        ("/backups/dumps/1/archive.tar.gz", ""),
    ],
)
def test_which_keys_leave_the_media_host(request_uri: str, key: str) -> None:
    """The patterns as nginx reads them: the first that matches, and Python spells named groups with a P."""
    rows = re.findall(r'^\s*"~(.+)" (\S+);$', block(config(), "map $request_uri $media_key"), re.MULTILINE)
    for pattern, value in rows:
        if match := re.search(pattern.replace("(?<", "(?P<"), request_uri):
            assert (match["plain_key"] if value == "$plain_key" else "") == key
            return
    assert key == ""


def test_resolvers_of_both_protocols() -> None:
    text = config(network={"resolvers": ["192.0.2.1", "2001:db8::1"], "time_servers": ["time.agency.test"]})
    assert "resolver 192.0.2.1 [2001:db8::1] valid=60s;" in text


def test_plain_http_leads_to_our_name_and_never_to_the_one_asked_for() -> None:
    targets = re.findall(r"return 301 (\S+);", config())
    assert targets == [f"https://{name}$request_uri" for name in ("social.agency.test", "files.social.agency.test")]


@pytest.mark.parametrize(
    ("today", "until"),
    [
        (date(2026, 1, 1), "2027-01-01T00:00:00Z"),
        (date(2026, 6, 30), "2027-01-01T00:00:00Z"),
        (date(2026, 7, 1), "2027-07-01T00:00:00Z"),
        (date(2026, 12, 31), "2027-07-01T00:00:00Z"),
    ],
)
def test_security_txt_is_valid_for_half_a_year_at_least_and_changes_twice_a_year(today: date, until: str) -> None:
    assert expires(today) == until


def test_the_configuration_is_judged_before_it_takes_its_place_and_reloaded_after() -> None:
    file = written()[CONFIG]
    assert file.validate
    assert "nginx -t" in file.validate
    assert NGINX.reload
    assert {CONFIG, "/etc/mastodon-gov/tls/current"} <= set(NGINX.reads)


def test_logs_hold_no_query_and_are_gone_after_two_weeks() -> None:
    found = written()
    log_format = re.search(r"log_format mfg (.+?);", found[CONFIG].content, re.DOTALL)
    assert log_format
    assert not {"$request ", "$request_uri", "$args", "$query_string", "$http_referer"} & set(
        re.findall(r"\$\w+ ?", log_format[1])
    )
    rotation = found["/etc/logrotate.d/nginx"].content
    assert "daily" in rotation
    assert "maxage 14" in rotation
