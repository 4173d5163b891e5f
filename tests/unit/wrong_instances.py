# ruff: noqa: E501  one case is one line, so that the table can be read
"""Wrong instance directories: what is changed in a good one, and what the person must be told about it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.unit.instance_sample import ed25519, rsa


@dataclass(frozen=True)
class Wrong:
    """`old` becomes `new` in `file`; the sentence about `key` stands for the line that has `at` and says `says`."""

    name: str
    file: str
    old: str
    new: str
    key: str
    says: tuple[str, ...]
    at: str


def instance(name: str, old: str, new: str, key: str, *says: str, at: str = "") -> Wrong:
    """A change in instance.yaml."""
    return Wrong(name, "instance.yaml", old, new, key, says, at or new.splitlines()[-1])


def bodies(name: str, old: str, new: str, key: str, *says: str, at: str = "") -> Wrong:
    """A change in organisations.yaml."""
    return Wrong(name, "organisations.yaml", old, new, key, says, at or new.splitlines()[-1])


def addresses(name: str, old: str, new: str, key: str, *says: str) -> Wrong:
    """A change in addresses.yaml."""
    return Wrong(name, "addresses.yaml", old, new, key, says, new.splitlines()[-1])


LAB = "\nlab: true"
KEYS = "deploy_keys: [deploy_key.pub]"
PEOPLE = "administrators: []"
KEY, OTHER, SHORT = ed25519(), rsa(3072), rsa(2048)
PASTED = "-----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNzaC1rZXktdjEAAAAA -----END OPENSSH PRIVATE KEY-----"

FORM = [
    instance("misspelt key", "release:", "relase:", "relase", "unknown key", "Did you mean release?"),
    instance("misspelt key leaves a gap", "release:", "relase:", "release", "found nothing", "Add the key", at="# The demo"),
    instance("misspelt inner key", "  web:", "  wep:", "domain.wep", "handle, web, media", "Did you mean web?"),
    instance("key of another group", LAB, "\nlab: true\nfull_at: 02:00", "full_at", "belongs under backups"),
    instance("a later form", "format: 1", "format: 2", "format", "found 2", "Allowed: 1"),
    instance("no form", "format: 1\n", "", "format", "found nothing", at="# The demo"),
    instance("no as a truth", LAB, "\nlab: no", "lab", '"no"', "true or false", "Write false."),
    instance("a quoted truth", LAB, '\nlab: "true"', "lab", '"true"', "true or false"),
    instance("a number for a truth", LAB, "\nlab: 1", "lab", "read as a number", "true or false"),
    instance("a key twice", LAB, "\nlab: true\nlab: false", "lab", "a second lab", "line 5", at="lab: false"),
    instance("a tab", "  web: social", "\tweb: social", "", "a tab", "spaces", at="\tweb"),
    instance("an open bracket", "networks: [control]", "networks: [control", "", "YAML", "began in line 29", at="  deploy_keys:"),
    instance("a reference", "networks: [control]", "networks: *all", "", "a reference", "write the value out"),
    instance("an anchor", "networks: [control]", "networks: &all [control]", "", "a reference"),
    instance("a tag", LAB, "\nlab: !!python/name:os.system x", "lab", "tag !!python/name", "Remove the tag"),
    instance("a group as text", "owner:\n  username: owner\n  address: owner@agency.test", "owner: owner@agency.test",
             "owner", "the keys username, address"),
    instance("text as a list", "networks: [control]", "networks: control", "access.networks", "Write it as a list"),
    instance("a group of another file", LAB, "\nlab: true\norganisations: []", "organisations", "organisations.yaml"),
    instance("a group missing", "mail:\n", "post:\n", "mail", "found nothing", "relay", at="# The demo"),
]  # fmt: skip
NAMES = [
    instance("release with two numbers", "4.6.5", "4.6", "release", '"4.6"', "three numbers"),
    instance("release as a number", "4.6.5", "46", "release", "read as a number", "quotes"),
    instance("capital letters", "handle: agency.test", "handle: Agency.test", "domain.handle", 'Write "agency.test"'),
    instance("an address for a name", "web: social.agency.test", "web: https://social.agency.test", "domain.web", "without https"),
    instance("a name of another alphabet", "handle: agency.test", "handle: bücher.test", "domain.handle", "xn--bcher-kva.test", "alphabets"),
    instance("a bare word", "handle: agency.test", "handle: agency", "domain.handle", "full host name"),
    instance("an IP address for a name", "handle: agency.test", "handle: 192.0.2.1", "domain.handle", "full host name"),
    instance("uploads under the web name", "media: files.social.agency.test", "media: social.agency.test", "domain.media", "cookies"),
    instance("uploads under the handle's name", "media: files.social.agency.test", "media: agency.test", "domain.media", "domain.handle"),
    instance("no media name", "  media: files.social.agency.test", "", "domain.media", "Add the key media", at="domain:"),
    instance("a name of tests", LAB, "\nlab: false", "domain.handle", "reserved", "lab: true", at="handle: agency.test"),
    instance("a stranger as owner", "address: owner@agency.test", "address: owner@elsewhere.test", "owner.address", "agency.test, council.test"),
    instance("an owner below a staff domain", "address: owner@agency.test", "address: owner@x.agency.test", "owner.address", "agency.test"),
    instance("an address without domain", "address: owner@agency.test", "address: owner", "owner.address", "mail address"),
    instance("a reserved handle", "username: owner", "username: admin", "owner.username", "reserve"),
    instance("a handle with @", "username: owner", 'username: "@owner"', "owner.username", "without the @"),
    instance("an empty value", "username: owner", "username:", "owner.username", "found nothing", "Fill it in"),
]  # fmt: skip
ACCESS = [
    instance("host bits", "networks: [control]", "networks: [10.1.2.3/24]", "access.networks[1]", '"10.1.2.0/24"'),
    instance("everybody", "networks: [control]", "networks: [0.0.0.0/0]", "access.networks[1]", "everybody"),
    instance("everybody, v6", "networks: [control]", 'networks: ["::/0"]', "access.networks[1]", "everybody"),
    instance("a name nobody lists", "networks: [control]", "networks: [control, offise]", "access.networks[2]", "offise", "addresses.yaml"),
    instance("no network", "networks: [control]", "networks: []", "access.networks", "an empty list", "at least one"),
    instance("a number as network", "networks: [control]", "networks: [10]", "access.networks[1]", "found 10"),
    instance("a key file that is not there", KEYS, "deploy_keys: [other.pub]", "access.deploy_keys[1]", "No such file"),
    instance("a key file outside", KEYS, "deploy_keys: [../x.pub]", "access.deploy_keys[1]", "inside the instance directory"),
    instance("half a key", KEYS, f"deploy_keys: ['{KEY[:50]}']", "access.deploy_keys[1]", "cut"),
    instance("a key of another kind", KEYS, f"deploy_keys: ['{KEY.replace('ed25519', 'rsa', 1)}']", "access.deploy_keys[1]", "says ssh-rsa"),
    instance("a short key", KEYS, f"deploy_keys: ['{SHORT}']", "access.deploy_keys[1]", "less than 3072 bits"),
    instance("a private key", KEYS, f"deploy_keys: ['{PASTED}']", "access.deploy_keys[1]", "not shown"),
    instance("a system account", PEOPLE, f"administrators:\n    - {{name: root, keys: ['{KEY}']}}", "access.administrators[1].name", "account of the system"),
    instance("a person twice", PEOPLE, f"administrators:\n    - {{name: jane, keys: ['{KEY}']}}\n    - {{name: jane, keys: ['{OTHER}']}}", "access.administrators[2].name", "again"),
    instance("a person without keys", PEOPLE, "administrators:\n    - {name: jane, keys: []}", "access.administrators[1].keys", "at least one"),
]  # fmt: skip
SERVICES = [
    instance("a network as resolver", "[ns.world.test]", "[10.99.0.0/24]", "network.resolvers[1]", "IP address"),
    instance("the host as resolver", "[ns.world.test]", "[127.0.0.53]", "network.resolvers[1]", "another machine"),
    instance("a public name as resolver", "[ns.world.test]", "[dns.agency.test]", "network.resolvers[1]", "addresses.yaml"),
    instance("a time server with a port", "[ntp.world.test]", "['ntp.world.test:123']", "network.time_servers[1]", "host name or an IP"),
    instance("a password in the proxy", "  time_servers:", "  http_proxy: http://u:p@proxy.world.test:3128\n  time_servers:", "network.http_proxy", "without user and password", at="http_proxy"),
    instance("an unlisted proxy", "  time_servers:", "  http_proxy: http://proxy:3128\n  time_servers:", "network.http_proxy", "List proxy in addresses.yaml", at="http_proxy"),
    instance("a CA file outside", "[lab-ca.pem]", "[/etc/ssl/ca.pem]", "network.trusted_ca_files[1]", "inside the instance directory"),
    instance("a CA file that is no certificate", "[lab-ca.pem]", "[deploy_key.pub]", "network.trusted_ca_files[1]", "no certificate"),
    instance("two issuers", "certificates:\n", "certificates:\n  internal_ca: {directory: certs}\n", "certificates", "acme and internal_ca", "exactly one", at="certificates:"),
    instance("no issuer", "  acme:\n    directory: https://acme.world.test:14000/dir\n    contact: owner@agency.test", "  acme:", "certificates", "no issuer", at="certificates:"),
    instance("ACME without TLS", "https://acme.world", "http://acme.world", "certificates.acme.directory", "https address", at="http://acme"),
    instance("a public authority in a lab", "https://acme.world.test:14000/dir", "https://acme.agency.govt/dir", "certificates.acme.directory", "a public authority, in a lab"),
    instance("an unlisted S3", "https://s3.world.test", "https://s3.other.test", "object_storage.endpoint", "List s3.other.test in addresses.yaml"),
    instance("S3 by address", "https://s3.world.test", "https://10.99.0.12", "object_storage.endpoint", "with a host name"),
    instance("S3 with a path", "https://s3.world.test", "https://s3.world.test/tenant", "object_storage.endpoint", "without a path"),
    instance("a bucket with dots", "social-media ", "social.media ", "object_storage.media_bucket", "no dots", at="media_bucket"),
    instance("one bucket for both", "social-backups ", "social-media ", "object_storage.backup_bucket", "the same as object_storage.media_bucket", at="backup_bucket"),
    instance("one user for both", "  media_noncurrent_days: 1", "  backup_user: arn:aws:iam:::user/media", "object_storage.backup_user", "the same as"),
    instance("no lock at all", "backup_lock_days: 1", "backup_lock_days: 0", "object_storage.backup_lock_days", "from 1 to 3650"),
    instance("an octal number", "backup_lock_days: 1", "backup_lock_days: 014", "object_storage.backup_lock_days", '"014"', "leading zeros"),
    instance("a port too high", "port: 587", "port: 70000", "mail.port", "70000", "from 1 to 65535"),
    instance("a port by name", "port: 587", "port: smtp", "mail.port", "a whole number"),
    instance("a sender without domain", "from_address: social@agency.test", "from_address: social", "mail.from_address", "mail address"),
    instance("an unlisted relay", "relay: mail.world.test ", "relay: post.world.test ", "mail.relay", "List post.world.test", at="relay:"),
    instance("a time without a zero", "keep_full: 2", "full_at: 2:30", "backups.full_at", '"2:30"', "00:00 to 23:59"),
    instance("a time that is none", "keep_full: 2", "full_at: 24:00", "backups.full_at", "00:00 to 23:59"),
    instance("fewer days kept than locked", "backup_lock_days: 1", "backup_lock_days: 3", "backups.keep_full", "keeps 2 days", "locks for 3", "Write 3 or more", at="keep_full"),
    instance("a lock shorter than a week", "keep_full: 2", "keep_full: 2\n  full_on: sun", "object_storage.backup_lock_days", "every 7 days", at="backup_lock_days"),
    instance("a night that is none", "keep_full: 2", "keep_full: 2\n  full_on: weekly", "backups.full_on", '"weekly"', "'sat' or 'sun'"),
    instance("a second repository without a place", "keep_full: 2", "keep_full: 2\n  second: {bucket: copies}", "backups.second", "a directory, or an endpoint with its bucket"),
    instance("one backup only", "keep_full: 2", "keep_full: 1", "backups.keep_full", "from 2 to 365"),
    instance("fewer connections than threads", "keep_full: 2", "keep_full: 2\nmastodon:\n  web_workers: 4\n  web_threads: 10", "database.max_connections", "found 100", "2 × (4 × 10 web threads + 10 for jobs + 10 of streaming)", "Write 130 or more", at="# The demo"),
    instance("too few connections", "keep_full: 2", "keep_full: 2\ndatabase: {max_connections: 69}", "database.max_connections", "found 69", "70 or more"),
    instance("a language by name", "keep_full: 2", "keep_full: 2\nmastodon: {default_locale: english}", "mastodon.default_locale", "language code"),
]  # fmt: skip
LISTS = [
    bodies("a public mail provider", "[council.test]", "[council.test, gmail.com]", "organisations[2].domains[2]", "public mail provider", "anybody"),
    bodies("a domain of two bodies", "[council.test]", "[agency.test]", "organisations[2].domains[1]", "first: organisations[1].domains[1]"),
    bodies("an id twice", "id: council", "id: agency", "organisations[2].id", "again"),
    bodies("a body without domains", "    domains: [council.test]\n", "", "organisations[2].domains", "Add the key domains", at="id: council"),
    bodies("a misspelt key", "    domains: [council.test]", "    domain: [council.test]", "organisations[2].domain", "Did you mean domains?"),
    bodies("a number as name", "name: Council of Demonstrations", "name: 2024", "organisations[2].name", '"2024", read as a number', "quotes"),
    bodies("a day of a state to come", "[council.test]", "[council.test]\n    days: {leaving: 2026-11-02}", "organisations[2].days.leaving", "the state is live", "Write `state: leaving`"),
    bodies("days in the wrong order", "[council.test]", "[council.test]\n    days: {approved: 2026-11-02, live: 2026-11-01}", "organisations[2].days.live", "before approved", "2026-11-02 or later"),
    bodies("an address for a domain", "[council.test]", "['@council.test']", "organisations[2].domains[1]", "full host name"),
    bodies("a wildcard", "[council.test]", "['*.council.test']", "organisations[2].domains[1]", "full host name"),
    bodies("a look-alike", "[council.test]", "[cоuncil.test]", "organisations[2].domains[1]", "xn--", "alphabets"),
    bodies("an id with capitals", "id: council", "id: Council", "organisations[2].id", 'Write "council"'),
    bodies("another form", "format: 1", "format: 3", "format", "found 3"),
    bodies("nobody", "organisations:\n", "organisations: []\nothers:\n", "organisations", "an empty list", at="organisations:"),
    addresses("not an address", "[10.99.0.11, ", "[10.99.0.256, ", "social[1]", "10.99.0.256", "IP address"),
    addresses("an address without a list", "s3.world.test: [10.99.0.12]", "s3.world.test: 10.99.0.12", "s3.world.test", "Write it as a list"),
]  # fmt: skip
WRONG = [*FORM, *NAMES, *ACCESS, *SERVICES, *LISTS]
