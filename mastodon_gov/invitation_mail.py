"""The mail that carries an invitation: through the relay, at most once."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance

RunOnHost = Callable[[list[str], str], str]
Ask = Callable[[str], Any]
# The exit code comes back as text: a connection that breaks must not look like a relay that refused.
SEND = ["sh", "-c", "timeout 90 msmtp -t 2>&1; code=$?; echo; echo exit $code"]
TEXT = """\
{by} invites you to the account server of {name}.

Open this link within 72 hours. It is for this address only and works once:

{link}

A colleague approves the account after you have signed up. You then set up a second factor; have an authenticator
program or a security key at hand. If you do not expect this mail, ignore it: the link is of no use to anybody else.
"""


def message(instance: Instance, answer: dict[str, Any], link: str) -> str:
    """The mail as text; msmtp sets the sender."""
    mail = EmailMessage()
    mail["To"] = answer["address"]
    mail["Subject"] = f"Your invitation to {instance.domain.web}"
    mail["Date"] = formatdate(usegmt=True)
    mail["Message-ID"] = make_msgid(f"invitation.{answer['id']}", instance.domain.web)
    mail["Auto-Submitted"] = "auto-generated"
    if instance.mail.reply_to:
        mail["Reply-To"] = instance.mail.reply_to
    mail.set_content(TEXT.format(by=answer["by"], name=instance.domain.web, link=link))
    return mail.as_string()


def send(run_on_host: RunOnHost, ask: Ask, instance: Instance, answer: dict[str, Any], link: str) -> str:
    """Hand the mail to the relay unless that was done before; returns what happened.

    The ledger notes it before the mail leaves, so that a break in the middle cannot send it twice. Raises Refusal when
    the relay did not take it (the note is then taken back) or nobody knows whether it did.
    """
    if answer["mailed_at"]:
        return f"mailed already at {answer['mailed_at'][:16]} UTC"
    if not ask(mailed_sql(answer["id"], True))["changed"]:
        return "being mailed by somebody else at this moment"
    try:
        said = run_on_host(SEND, message(instance, answer, link))
    except Refusal as refusal:
        raise Refusal(
            f"The invitation exists, and the mail may have gone out or not ({refusal}). Ask the person; to send it "
            "again, revoke the invitation and make a new one, or hand over the link yourself."
        ) from None
    *words, code = said.strip().splitlines()
    if code == "exit 0":
        return "mailed"
    ask(mailed_sql(answer["id"], False))
    raise Refusal(
        f"The invitation exists, but the relay {instance.mail.relay} did not take the mail: {' '.join(words).strip()}. "
        "Nothing was sent. Run the same command again later, or hand over the link yourself."
    )


def mailed_sql(invitation: int, mailed: bool) -> str:
    """Statement that notes that an invitation is being mailed, or was not."""
    return f"SELECT gov.mailed('{json.dumps({'id': invitation, 'mailed': mailed})}'::jsonb);\n"
