"""Pages that nginx answers with by itself: the application is down, or the lock in the database has refused."""

from __future__ import annotations

import json

import pytest

from roles.nginx.role import NOT_REGISTERED
from tests.lab.proxy.place import WEB, Place, check_headers, told

BASE = f"https://{WEB}"


@pytest.mark.parametrize(("path", "kind"), [("/", "text/html"), ("/api/v1/streaming", "text/html")])
def test_a_page_of_our_own_when_the_application_is_down(place: Place, path: str, kind: str) -> None:
    with place.application_down():
        answer = place.get(BASE + path)
    assert answer.status == 502
    assert answer.header("content-type").startswith(kind)
    assert '<html lang="en">' in answer.body
    assert "not available" in answer.body
    check_headers(answer)


def test_an_upload_of_more_than_99_megabytes_is_told_so(place: Place) -> None:
    place.outside.ssh("truncate -s 100M /tmp/large; truncate -s 98M /tmp/fits")
    large = place.get(f"{BASE}/api/v2/media", "--data-binary", "@/tmp/large", "-H", "Expect:")
    assert large.status == 413
    assert "99 MB" in large.body
    fits = place.get(f"{BASE}/api/v2/media", "--data-binary", "@/tmp/fits", "-H", "Expect:")
    assert told(fits)["body"] == 98 * 2**20


@pytest.mark.parametrize("path", ["/auth", "/auth/setup", "/auth/confirmation", "/auth/auth/oidc/callback"])
def test_a_sign_up_that_the_lock_refuses_gets_a_sentence(place: Place, path: str) -> None:
    answer = place.get(f"{BASE}{path}?status=500", "-X", "POST")
    assert answer.status == 403
    assert NOT_REGISTERED in answer.body
    check_headers(answer)
    assert told(place.get(f"{BASE}{path}?status=422", "-X", "POST"))["method"] == "POST"


def test_an_address_that_the_lock_refuses_to_an_administrator_gets_a_sentence(place: Place) -> None:
    path = f"{BASE}/admin/accounts/7/change_email"
    refused = place.get(f"{path}?status=500", "-X", "PATCH")
    assert refused.status == 403
    assert NOT_REGISTERED in refused.body
    assert "another organisation" in refused.body
    check_headers(refused)
    failed = place.get(f"{path}?status=500")
    assert failed.status == 500
    assert NOT_REGISTERED not in failed.body


@pytest.mark.parametrize("path", ["/api/v1/accounts", "/api/v1/emails/confirmations"])
def test_an_account_refused_through_the_api_gets_json(place: Place, path: str) -> None:
    refused = place.get(f"{BASE}{path}?status=500", "-X", "POST")
    assert (refused.status, json.loads(refused.body)) == (403, {"error": NOT_REGISTERED})
    assert refused.header("content-type").startswith("application/json")
    check_headers(refused)
    assert place.get(f"{BASE}{path}?status=500").status == 500


def test_a_setting_that_the_lock_refuses_gets_a_sentence(place: Place) -> None:
    refused = place.get(f"{BASE}/admin/settings/registrations?status=500", "-X", "PATCH")
    assert refused.status == 403
    assert "This setting is fixed" in refused.body
    check_headers(refused)
    failed = place.get(f"{BASE}/admin/settings/registrations?status=500")
    assert failed.status == 500
    assert "fixed" not in failed.body


@pytest.mark.parametrize(
    "path",
    [
        "/settings/delete",
        "/admin/accounts/7/action",
        "/admin/accounts/7/memorialize",
        "/admin/accounts/batch",
        "/admin/reports/7/actions",
    ],
)
def test_a_guard_of_official_accounts_gets_a_sentence(place: Place, path: str) -> None:
    """Wherever a moderator can suspend: one account, many, from a report."""
    refused = place.get(f"{BASE}{path}?status=500", "-X", "POST")
    assert refused.status == 403
    assert "Not possible with an official account" in refused.body
    assert told(place.get(f"{BASE}{path}?status=422", "-X", "POST"))["method"] == "POST"
