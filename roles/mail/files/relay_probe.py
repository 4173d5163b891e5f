"""Try a mail relay step by step; what to try comes as JSON on standard input, the outcome goes out as JSON.

Input: relay, port, name (ours in EHLO), sender, recipient, login, password, trusted_ca (PEM texts), send (bool).
Output: step ("" when all went well), code (of the relay, or 0), detail. Standard library only: it also runs on hosts.
"""

from __future__ import annotations

import json
import smtplib
import ssl
import sys
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any

TIMEOUT = 10  # seconds, for each answer


class Failed(Exception):
    """A step that did not go well."""

    def __init__(self, step: str, code: int, detail: object) -> None:
        text = detail.decode(errors="replace") if isinstance(detail, bytes) else str(detail)
        super().__init__(text)
        self.answer = {"step": step, "code": code, "detail": " ".join(text.split())[:300]}


def secured(relay: smtplib.SMTP, trusted: list[str]) -> None:
    """STARTTLS with the system's authorities and the given ones; the certificate must carry the relay's name."""
    relay.ehlo()
    if not relay.has_extn("starttls"):
        raise Failed("starttls", 0, "not offered")
    context = ssl.create_default_context()
    for pem in trusted:
        context.load_verify_locations(cadata=pem)
    try:
        relay.starttls(context=context)
    except ssl.SSLCertVerificationError as error:
        raise Failed("certificate", 0, error.verify_message) from error
    except smtplib.SMTPResponseException as error:
        raise Failed("starttls", error.smtp_code, error.smtp_error) from error
    except ssl.SSLError as error:
        raise Failed("starttls", 0, error) from error
    relay.ehlo()


def signed_in(relay: smtplib.SMTP, login: str, password: str) -> None:
    """AUTH, where there is a login."""
    if not login:
        return
    try:
        relay.login(login, password)
    except smtplib.SMTPAuthenticationError as error:
        raise Failed("login", error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPNotSupportedError as error:
        raise Failed("login", 0, error) from error


def accepted(step: str, answer: tuple[int, bytes]) -> None:
    """Whether the relay took what was said last."""
    if answer[0] not in (250, 251, 354):
        raise Failed(step, *answer)


def message(want: dict[str, Any]) -> bytes:
    """A message that says what it is."""
    mail = EmailMessage()
    mail["From"], mail["To"] = want["sender"], want["recipient"]
    mail["Subject"] = f"Test of the mail relay by {want['name']}"
    mail["Date"], mail["Message-ID"] = formatdate(), make_msgid(domain=want["name"])
    mail.set_content("mastodon-gov check --send sent this to prove that mail arrives. Nothing needs to be done.\n")
    return mail.as_bytes()


def tried(want: dict[str, Any]) -> None:
    """All steps in the order of a real delivery; without `send` it ends before the message."""
    try:
        relay = smtplib.SMTP(want["relay"], want["port"], want["name"], timeout=TIMEOUT)
    except smtplib.SMTPConnectError as error:
        raise Failed("greeting", error.smtp_code, error.smtp_error) from error
    try:
        secured(relay, want["trusted_ca"])
        signed_in(relay, want["login"], want["password"])
        accepted("sender", relay.mail(want["sender"]))
        accepted("recipient", relay.rcpt(want["recipient"]))
        if want["send"]:
            accepted("message", relay.data(message(want)))
        else:
            relay.rset()
        relay.quit()
    finally:
        relay.close()


def main() -> None:
    """One JSON document, whatever happens."""
    answer: dict[str, Any] = {"step": "", "code": 0, "detail": ""}
    try:
        tried(json.load(sys.stdin))
    except Failed as failed:
        answer = failed.answer
    except smtplib.SMTPServerDisconnected as error:
        answer = Failed("greeting", 0, error).answer
    except OSError as error:
        answer = Failed("connect", 0, error.strerror or error).answer
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
