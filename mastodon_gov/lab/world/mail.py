"""Reading what the world's mail server received, and making it refuse."""

from __future__ import annotations

import json
from email import message_from_bytes, policy
from email.message import EmailMessage

from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.world.services import MAIL_MODE, MAIL_MODES, POSTBOX

# Oldest first. Only whole messages are in `new`: delivery renames them into it. Latin-1 is bytes as they are.
READ = f"""\
import json, pathlib
kept = sorted(pathlib.Path("{POSTBOX}/Maildir/new").glob("*"), key=lambda path: path.stat().st_mtime_ns)
print(json.dumps([path.read_bytes().decode("latin-1") for path in kept]))
"""


def read_mail(lab: Lab) -> list[EmailMessage]:
    """Every message that arrived, oldest first."""
    texts = json.loads(lab.machine("world").ssh(["python3", "-"], stdin=READ).stdout)
    return [message_from_bytes(text.encode("latin-1"), policy=policy.default) for text in texts]


def set_mode(lab: Lab, mode: str) -> None:
    """`accept` mail, or `refuse` every recipient with 550 (signing in goes on to work) until the next build."""
    write = f"cat > {MAIL_MODE}.new && mv {MAIL_MODE}.new {MAIL_MODE} && systemctl restart opensmtpd"
    lab.machine("world").ssh(write, stdin=MAIL_MODES[mode])


def text_of(message: EmailMessage) -> str:
    """The message as a person reads it: four headers and the plain text."""
    headers = "".join(f"{name}: {message[name]}\n" for name in ("Date", "From", "To", "Subject"))
    body = message.get_body(("plain", "html"))
    return f"{headers}\n{body.get_content() if body else '(no text)'}"
