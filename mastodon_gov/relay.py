"""The mail relay, tried as a sender would: for the verb `check`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mastodon_gov.instance import Instance, Secrets

PROBE = Path(__file__).resolve().parents[1] / "roles" / "mail" / "files" / "relay_probe.py"
# Runs a command somewhere with this standard input and returns its standard output.
Runner = Callable[[Sequence[str], str], str]


def here(command: Sequence[str], given: str) -> str:
    """Run on this machine, with this Python."""
    words = [sys.executable, *command[1:]]
    return subprocess.run(words, input=given, capture_output=True, text=True, timeout=120, check=True).stdout


def relay_findings(instance: Instance, secrets: Secrets, *, send: bool = False, run: Runner = here) -> list[str]:
    """Sentences about the relay, none is good; with `send` a message really goes to the owner.

    `run` decides from where: the control node may not reach a relay that the host does. The program travels as an
    argument, the password on standard input.
    """
    given = {
        "relay": instance.mail.relay,
        "port": instance.mail.port,
        "name": instance.domain.web,
        "sender": instance.mail.from_address,
        "recipient": instance.owner.address,
        "login": secrets.mail.login.get_secret_value(),
        "password": secrets.mail.password.get_secret_value(),
        "trusted_ca": list(instance.trusted_ca),
        "send": send,
    }
    answer = json.loads(run(["python3", "-c", PROBE.read_text()], json.dumps(given)))
    sentence = sentence_of(instance, answer["step"], answer["code"], answer["detail"])
    return [sentence] if sentence else []


def sentence_of(instance: Instance, step: str, code: int, detail: str) -> str:
    """What an outcome of the probe means; empty when all went well."""
    if not step:
        return ""
    mail = instance.mail
    relay, said = f"{mail.relay} port {mail.port} (mail.relay)", f"{code} {detail}" if code else detail
    return {
        "connect": f"{relay} cannot be reached: {said}. Check the name, the port and the firewall between.",
        "greeting": f"{relay} does not speak with this machine: {said}. Ask the relay's operator to admit its address.",
        "starttls": f"{relay} offers no STARTTLS ({said}), and mail never leaves without. Use a port that offers it.",
        "certificate": (
            f"{relay} shows a certificate that is not trusted: {said}. Name the authority that signed it in "
            "network.trusted_ca_files, or use the name that the certificate carries."
        ),
        "login": (
            f"{relay} refuses to sign us in: {said}. Correct mail.login and mail.password in the secrets with "
            "`mastodon-gov secrets edit`; leave both empty for a relay that knows us by address."
        ),
        "sender": (
            f"{relay} refuses the sender {mail.from_address} (mail.from_address): {said}. Ask the relay's operator to "
            "allow it, or write one that is allowed."
        ),
        "recipient": (
            f"{relay} refuses mail to {instance.owner.address} (owner.address): {said}. Check the address; the relay "
            "must take mail for all staff."
        ),
        "message": f"{relay} refused the test message: {said}. Ask the relay's operator what its filter minds.",
    }[step]
