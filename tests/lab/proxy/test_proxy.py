"""What a stranger gets from the web host: TLS, headers on every answer, files, streaming, and what stays hidden."""

from __future__ import annotations

import pytest

from tests.lab.proxy.place import CA, WEB, Answer, Place, check_headers, told

BASE = f"https://{WEB}"


def reached(answer: Answer, name: str) -> list[str]:
    """Values of a header that reached the application."""
    return [value for key, value in told(answer)["headers"] if key.lower() == name.lower()]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/toy/200", 200),
        ("/toy/200?headers=rails", 200),
        ("/toy/301?headers=rails", 301),
        ("/toy/404", 404),
        ("/toy/404?headers=rails", 404),
        ("/toy/500?headers=rails", 500),
        ("/toy/503", 503),
        ("/robots.txt", 200),
        ("/packs/new.js", 200),
        ("/packs/old.js", 200),
        ("/packs/nowhere.js", 404),
        ("/.env", 404),
        ("/metrics", 404),
        ("/.well-known/security.txt", 200),
        ("/mfg-errors/502.html", 404),
    ],
)
def test_every_answer_has_every_header_once(place: Place, path: str, status: int) -> None:
    answer = place.get(BASE + path)
    assert answer.status == status
    check_headers(answer)


def test_the_application_s_own_policy_stays_and_pages_for_embedding_may_be_framed(place: Place) -> None:
    assert "script-src 'self'" in place.get(f"{BASE}/toy/200?headers=rails").header("content-security-policy")
    embed = place.get(f"{BASE}/toy/200?headers=embed")
    assert embed.header("x-frame-options") == ""
    assert embed.header("content-security-policy") == "default-src 'none'"


def test_plain_http_leads_to_https_of_our_own_name(place: Place) -> None:
    answer = place.get(f"http://{WEB}/a/b?c=d")
    assert (answer.status, answer.header("location")) == (301, f"{BASE}/a/b?c=d")
    assert answer.header("x-content-type-options") == "nosniff"
    # RFC 6797, 7.2: never over plain HTTP.
    assert answer.header("strict-transport-security") == ""


@pytest.mark.parametrize(("url", "status"), [(f"http://{WEB}/", 0), (f"{BASE}/", 421)])
def test_an_unknown_host_gets_nothing(place: Place, url: str, status: int) -> None:
    answer = place.get(url, "-H", "Host: evil.test")
    assert answer.status == status
    assert "Empty reply" in answer.body or "Misdirected" in answer.body


@pytest.mark.parametrize("address", ["address4", "address6"])
def test_an_unknown_name_gets_no_certificate(place: Place, address: str) -> None:
    where = getattr(place.host, address)
    command = f"openssl s_client -connect '[{where}]:443' -servername evil.test </dev/null"
    done = place.outside.ssh(command, check=False)
    assert "unrecognized name" in done.stdout + done.stderr
    assert "no peer certificate available" in done.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("-tls1_1 -cipher ALL:@SECLEVEL=0", "alert protocol version"),
        ("-tls1_2 -cipher AES256-GCM-SHA384", "handshake failure"),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES256-SHA384", "handshake failure"),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384", "Verify return code: 0 (ok)"),
        ("-tls1_3", "Negotiated TLS1.3 group: X25519MLKEM768"),
        ("-tls1_3 -groups P-256", "Verify return code: 0 (ok)"),
    ],
)
def test_only_strong_tls(place: Place, options: str, expected: str) -> None:
    assert expected in handshake(place, options)


def handshake(place: Place, options: str) -> str:
    """What openssl tells of a connection to the web host."""
    command = f"openssl s_client -connect {WEB}:443 -servername {WEB} -CAfile {CA} {options} </dev/null 2>&1"
    return place.outside.ssh(command, check=False).stdout


def test_no_session_tickets(place: Place) -> None:
    # TLS 1.2 only: what TLS 1.3 calls a ticket is here the number of a session that the server itself keeps.
    told = handshake(place, "-tls1_2")
    assert "Session-ID: " in told
    assert "TLS session ticket:" not in told


def test_what_a_client_says_about_itself_counts_for_nothing(place: Place) -> None:
    forged = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Real-IP": "203.0.113.9",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.test",
        "X-Forwarded-Port": "81",
        "X-Forwarded-Ssl": "off",
        "Forwarded": "for=203.0.113.9;host=evil.test",
        "Client-IP": "203.0.113.9",
        "Proxy": "http://evil.test",
    }
    answer = place.get(
        f"{BASE}/toy/200", "-4", *(word for name in forged for word in ("-H", f"{name}: {forged[name]}"))
    )
    seen = {name: reached(answer, name) for name in forged}
    truth = {"X-Forwarded-For": [place.outside.address4], "X-Real-IP": [place.outside.address4]}
    assert seen == {name: [] for name in forged} | truth | {"X-Forwarded-Proto": ["https"]}
    assert reached(answer, "Host") == [WEB]


@pytest.mark.parametrize(
    "path", ["/.env", "/.git/config", "/packs/.hidden", "/%2eenv", "/a/../.env", "/emoji/%2e%2e/.env"]
)
def test_hidden_files_are_not_there(place: Place, path: str) -> None:
    answer = place.get(BASE + path)
    assert answer.status == 404
    assert "secret" not in answer.body
    assert "Page not found" in answer.body


def test_well_known_addresses_reach_the_application(place: Place) -> None:
    path = "/.well-known/webfinger?resource=acct:a@agency.test"
    assert told(place.get(BASE + path))["path"] == path
    assert place.get(f"{BASE}/packs/.vite/manifest.json").status == 200


def test_security_txt_names_an_address_and_an_end(place: Place) -> None:
    text = place.get(f"{BASE}/.well-known/security.txt")
    assert text.header("content-type").startswith("text/plain")
    fields = dict(line.split(": ", 1) for line in text.body.splitlines())
    assert fields["Contact"].startswith("mailto:")
    assert fields["Expires"] > text.header("date")[12:16]


@pytest.mark.parametrize("path", ["/metrics", "/sidekiq", "/sidekiq/queues", "/pghero", "//sidekiq", "/%73idekiq"])
def test_the_inside_is_for_administrators_networks(place: Place, path: str) -> None:
    assert place.get(BASE + path).status == 404
    status = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is"]
    inside = place.host.ssh([*status, "--connect-to", f"{WEB}:443:{place.host.address4}:443", BASE + path])
    assert inside.stdout == "200"


def test_scripts_of_the_release_before_are_still_there(place: Place) -> None:
    assert place.get(f"{BASE}/packs/new.js").body.strip() == "new"
    old = place.get(f"{BASE}/packs/old.js")
    assert (old.body.strip(), old.header("cache-control")) == ("old", "max-age=2419200")
    place.host.ssh("rm /opt/mastodon/previous")
    assert place.get(f"{BASE}/packs/old.js").status == 404
    place.start_application()


def test_a_web_socket_goes_through(place: Place) -> None:
    script = f"""
import socket, ssl
tls = ssl.create_default_context(cafile="{CA}")
line = tls.wrap_socket(socket.create_connection(("{WEB}", 443), 10), server_hostname="{WEB}")
line.sendall(b"GET /api/v1/streaming HTTP/1.1\\r\\nHost: {WEB}\\r\\nConnection: Upgrade\\r\\nUpgrade: WebSocket\\r\\n"
             b"Sec-WebSocket-Version: 13\\r\\n\\r\\n")
head = line.recv(4096)
line.sendall(b"hello")
got = b""
while more := line.recv(4096):
    got += more
print(head.split()[1], got)
"""
    assert place.outside.ssh(["python3", "-"], stdin=script).stdout.strip() == "b'101' b'echo hello'"


def test_events_arrive_at_once(place: Place) -> None:
    answer = place.get(f"{BASE}/api/v1/streaming/public", "--max-time", "3")
    assert answer.status == 200
    assert "event: first" in answer.body


def test_requests_move_to_the_slot_that_answers(place: Place) -> None:
    place.host.ssh("systemd-run -q -u toy-3001 -p DynamicUser=yes python3 /usr/local/bin/toy 3001")
    place.host.ssh(["timeout", "20", "bash", "-c", "until : < /dev/tcp/127.0.0.1/3001; do sleep 0.1; done 2>/dev/null"])
    ports = {told(place.get(f"{BASE}/toy/200"))["port"] for _ in range(6)}
    place.host.ssh("systemctl stop toy-3000")
    rest = [told(place.get(f"{BASE}/toy/200", "-X", "POST"))["port"] for _ in range(4)]
    place.host.ssh("systemctl stop toy-3001")
    place.start_application()
    assert (ports, rest) == ({3000, 3001}, [3001] * 4)


def test_a_redirect_as_long_as_its_address_is_passed_on(place: Place) -> None:
    assert place.get(f"{BASE}/long/{'x' * 6000}").header("location").endswith("x" * 6000)


def test_the_log_keeps_no_query_string(place: Place) -> None:
    place.get(f"{BASE}/oauth/authorize?code=hidden-word", "-e", f"{BASE}/x?referring=hidden-word")
    log = "/var/log/nginx"
    assert "/oauth/authorize HTTP" in place.host.ssh(f"cat {log}/access.log").stdout
    with place.application_down():
        place.get(f"{BASE}/oauth/authorize?code=hidden-word")
    assert place.host.ssh(f"grep -r hidden-word {log}", check=False).returncode == 1


def test_rotation_makes_a_new_log_that_nginx_writes_to(place: Place) -> None:
    place.host.ssh("logrotate -f /etc/logrotate.d/nginx")
    found = 'until [ "$(stat -c %a:%U /var/log/nginx/access.log)" = 640:www-data ]; do sleep 0.1; done'
    place.host.ssh(["timeout", "10", "sh", "-c", found])
    wait = 'for n in $(seq 50); do [ -s /var/log/nginx/access.log ] && exit 0; curl -sko /dev/null "$0"; done; exit 1'
    place.host.ssh(["sh", "-c", wait, f"{BASE}/after-rotation"])


def test_the_sandbox_holds_and_the_score_with_it(place: Place) -> None:
    score = place.host.ssh("systemd-analyze security --no-pager --threshold=25 nginx.service", check=False)
    assert score.returncode == 0, score.stdout[-200:]
    pid = place.host.ssh("cat /run/nginx/nginx.pid").stdout.strip()
    status = place.host.ssh(f"cat /proc/{pid}/status").stdout
    assert "Seccomp:\t2" in status
    refused = place.host.ssh(f"nsenter -t {pid} -m touch /etc/written /usr/written", check=False)
    assert refused.stderr.count("Read-only file system") == 2
