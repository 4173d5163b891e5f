"""Facts of the role base: accounts, passwords, sudo. No digest of a password leaves the host."""

from __future__ import annotations

import grp
import json
import pwd
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roles.base.files.facts_lib import output
else:
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import output

GROUPS = ("mfg-admin", "mfg-deploy", "mfg-audit", "sudo", "sugroup")
NO_SHELL = ("/usr/sbin/nologin", "/bin/false", "/usr/bin/false")
IDLE_DAYS = 90


def accounts() -> list[dict[str, object]]:
    """Everybody: number, shell, and whether the password is locked or empty. `since`: days since it was last set, which
    is when the account was made where nobody ever had one."""
    shadow = {line.split(":")[0]: line.split(":") for line in Path("/etc/shadow").read_text().splitlines()}
    found: list[dict[str, object]] = []
    for each in pwd.getpwall():
        kept = shadow.get(each.pw_name, ["", "*", "0"])
        found.append(
            {
                "name": each.pw_name,
                "uid": each.pw_uid,
                "gid": each.pw_gid,
                "may_sign_in": each.pw_shell not in NO_SHELL,
                "locked": kept[1][:1] in ("!", "*"),
                "empty": kept[1] == "",
                "since": int(time.time() // 86400) - int(kept[2] or 0),
            }
        )
    return found


def groups() -> dict[str, list[str]]:
    """Members of the groups that give rights; a group that is not there has none."""
    known = {each.gr_name: each for each in grp.getgrall()}
    first = {name: [who.pw_name for who in pwd.getpwall() if who.pw_gid == known[name].gr_gid] for name in known}
    return {name: sorted({*known[name].gr_mem, *first[name]}) if name in known else [] for name in GROUPS}


def zeros() -> dict[str, list[str]]:
    """Whose number is 0."""
    return {
        "users": [each.pw_name for each in pwd.getpwall() if each.pw_uid == 0],
        "first_groups": [each.pw_name for each in pwd.getpwall() if each.pw_gid == 0],
        "groups": [each.gr_name for each in grp.getgrall() if each.gr_gid == 0],
    }


def idle() -> list[str]:
    """Members of mfg-admin older than 90 days whose key sshd has not taken for as long."""
    shadow = {str(each["name"]): each for each in accounts()}
    old = [name for name in groups()["mfg-admin"] if int(str(shadow[name]["since"])) > IDLE_DAYS]
    if not old:
        return []
    words = ["journalctl", "-q", "-o", "cat", "-t", "sshd-session", "-t", "sshd", f"--since=-{IDLE_DAYS}d"]
    seen = set(re.findall(r"^Accepted \S+ for (\S+) ", output(*words, "-g", "^Accepted"), re.M))
    return [name for name in old if name not in seen]


def login_defs() -> dict[str, str]:
    """/etc/login.defs as login and useradd read it: the last line of a name counts."""
    lines = [line.split() for line in Path("/etc/login.defs").read_text().splitlines()]
    return {line[0]: line[1] for line in lines if len(line) > 1 and not line[0].startswith("#")}


def shell() -> dict[str, object]:
    """What a sign-in gets: its mask, and the seconds after which an idle shell ends (`fixed`: nobody can undo it)."""
    told = output("bash", "-lc", "umask; echo ${TMOUT:-none}; readonly -p | grep -c ' TMOUT=' || true").split()
    return {"umask": told[0], "timeout": told[1], "fixed": told[2] == "1"}


def quality() -> dict[str, str]:
    """pam_pwquality's settings as it reads them: the files of its directory in order, then its main file."""
    files = [*sorted(Path("/etc/security/pwquality.conf.d").glob("*.conf")), Path("/etc/security/pwquality.conf")]
    found = {"used": str("pam_pwquality.so" in Path("/etc/pam.d/common-password").read_text())}
    for path in files:
        for line in path.read_text().splitlines() if path.exists() else ():
            name, _, value = line.partition("#")[0].partition("=")
            if name.strip():
                found[name.strip()] = value.strip()
    return found


def pam() -> dict[str, list[str]]:
    """Lines of the files that every sign-in and su go through, without comments."""
    found = {}
    for name in ("common-auth", "common-account", "su"):
        lines = Path("/etc/pam.d", name).read_text().splitlines()
        found[name] = [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]
    return found


def sudo_settings() -> str:
    """sudo's own view of its settings (`sudo -V` as root)."""
    return output("sudo", "-V")


def sudo_rules() -> list[dict[str, object]]:
    """Every rule that sudo reads: who, as whom, what, and whether it asks for a password."""
    told = json.loads(output("cvtsudoers", "-e", "-f", "json", "/etc/sudoers"))
    found: list[dict[str, object]] = []
    for spec in told.get("User_Specs", []):
        who = [next(iter(f"{key}:{value}" for key, value in each.items())) for each in spec["User_List"]]
        for rule in spec["Cmnd_Specs"]:
            options = {key: value for option in rule.get("Options", []) for key, value in option.items()}
            what = [str(each.get("command", each)) + ("!" if each.get("negated") else "") for each in rule["Commands"]]
            found += [
                {"who": name, "what": command, "asks": options.get("authenticate", True)}
                for name in who
                for command in what
            ]
    return found


def sudo_free() -> list[str]:
    """Defaults that spare somebody the password or hold for some only: `sudo -V` shows neither."""
    found = []
    for each in json.loads(output("cvtsudoers", "-e", "-f", "json", "/etc/sudoers")).get("Defaults", []):
        options = {key: value for option in each["Options"] for key, value in option.items()}
        if each.get("Binding") or options.get("authenticate") is False or "exempt_group" in options:
            whom = [f"{key}:{value}" for bound in each.get("Binding", ()) for key, value in bound.items()]
            found.append(f"Defaults {options} for {', '.join(whom) or 'everybody'}")
    return found


PARTS = (accounts, groups, zeros, idle, login_defs, shell, quality, pam, sudo_settings, sudo_rules, sudo_free)
