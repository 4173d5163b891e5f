"""Settings of the running system that others change too: what they must be, and how to set them again."""

from __future__ import annotations

from mastodon_gov.instance import Node
from roles.lib.live import Live
from roles.lib.render import render

# The parameter after the rule: no more rights than these; useradd and editors make the copies anew.
MODES = {
    "/etc/passwd /etc/passwd- /etc/group /etc/group-": "644",
    "/etc/shadow /etc/shadow- /etc/gshadow /etc/gshadow-": "640",
    "/etc/crontab /etc/ssh/sshd_config": "600",
    "/etc/sudoers.d": "750",
    "/etc/cron.d /etc/cron.hourly /etc/cron.daily /etc/cron.weekly /etc/cron.monthly": "700",
}
# No PASS_MAX_DAYS: PAM counts it for accounts without a password too, and would lock keys out a year later.
LOGIN_DEFS = {
    "UMASK": "027",
    "ENCRYPT_METHOD": "YESCRYPT",
    "PASS_MIN_DAYS": "1",
    "SHA_CRYPT_MIN_ROUNDS": "65536",
    "SHA_CRYPT_MAX_ROUNDS": "65536",
}
# wtmp, btmp and lastlog are written by the group utmp, and hold nothing that everybody may not know. A directory that
# is closed to others closes what is in it: certbot and unattended-upgrades make theirs so, and their logs anew.
READABLE_LOGS = (
    "find /var/log -type d ! -perm -0001 -prune -o -type f -perm /0137 ! -name wtmp ! -name btmp ! -name lastlog "
    "! -path '*/journal/*'"
)
# cloud-init's rule for the user of the image, who made the first contact and is nobody here from then on.
CLOUD = "/etc/sudoers.d/90-cloud-init-users"
SU = "auth required pam_wheel.so use_uid group=sugroup"


def mended(node: Node) -> list[Live]:
    """Everything of this role that can differ although its files are right."""
    mounts = [_mount(place) for place in ("/tmp", "/dev/shm")]  # noqa: S108 - looked at, not written to
    return [*_kernel(node), *mounts, *_modes(), *_logins(), _cloud_user(node), _logs(), *_sources()]


def _kernel(node: Node) -> list[Live]:
    """Every line of our sysctl file. In a container most belong to its host, and cannot be written."""
    lines = render("base/etc/sysctl.d/60-mfg.conf", node).splitlines()
    pairs = [line.split(" = ") for line in lines if " = " in line and not line.startswith("#")]
    return [_sysctl(key, value) for key, value in pairs]


def _sysctl(key: str, value: str) -> Live:
    # All of them in the order of the file: ip_forward sets others back when it changes.
    path = f"/proc/sys/{key.replace('.', '/')}"
    return Live(key, f"[ -w {path} ] && cat {path} || echo {value}", value, "systemctl restart systemd-sysctl.service")


def _mount(place: str) -> Live:
    look = f"findmnt -nro OPTIONS {place} | tr , '\\n' | grep -E '^(nodev|noexec|nosuid)$' | sort"
    return Live(place, look, "nodev noexec nosuid", "systemctl restart mfg-mounts.service")


def _modes() -> list[Live]:
    """An owner who is not root, or a bit more than the mode allows."""
    found = []
    for paths, mode in MODES.items():
        more = f"/{0o7777 & ~int(mode, 8):o}"
        look = f"find {paths} -maxdepth 0 \\( ! -user root -o -perm {more} \\)"
        mend = f"{look} 2>/dev/null | while read -r p; do chown root $p && chmod {mode} $p; done"
        found.append(Live(paths.split()[0], look, "", mend))
    return found


def _logins() -> list[Live]:
    """Root signs in with no password, su is for nobody, and new files are not for everybody."""
    # After the line that lets root act for anybody.
    look = f"grep -A1 '^auth.*pam_rootok.so' /etc/pam.d/su | grep -cx '{SU}'"
    found = [
        Live("root's password", "passwd -S root | cut -d' ' -f2", "L", "passwd -q -l root"),
        Live("members of sudo", "getent group sudo | cut -d: -f4", "", "gpasswd -M '' sudo"),
        Live("members of sugroup", "getent group sugroup | cut -d: -f4", "", "gpasswd -M '' sugroup"),
        Live("su", look, "1", f"sed -i -e /pam_wheel/d -e '/^auth.*pam_rootok.so/a {SU}' /etc/pam.d/su"),
    ]
    for key, value in LOGIN_DEFS.items():
        look = f"awk '$1 == \"{key}\" {{print $2}}' /etc/login.defs"
        mend = f"sed -i -e '/^{key}[[:space:]]/d' /etc/login.defs && echo '{key} {value}' >> /etc/login.defs"
        found.append(Live(key, look, value, mend))
    return found


def _cloud_user(node: Node) -> Live:
    """Whom the rule names gets no shell any more, unless instance.yaml names the same person; then the rule goes."""
    ours = "|".join(["deploy", "auditor", *(person.name for person in node.instance.access.administrators)])
    named = f"awk '$2 ~ /^ALL=/ {{print $1}}' {CLOUD}"
    close = f'case $who in {ours}) ;; *) ! id "$who" >/dev/null || usermod --shell /usr/sbin/nologin "$who" ;; esac'
    mend = f"for who in $({named}); do {close} || exit 1; done; rm -f {CLOUD}"
    return Live("sudo without a password for the user of a cloud image", f"ls {CLOUD}", "", mend)


def _logs() -> Live:
    return Live(
        "logs that everybody may read", f"{READABLE_LOGS} -print", "", f"{READABLE_LOGS} -exec chmod g-wx,o-rwx {{}} +"
    )


def _sources() -> list[Live]:
    """Each source of packages names the keys that may sign it; apt itself knows how to write that."""
    look = "cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list | grep '^deb' | grep -vc signed-by"
    # apt also works as an account of its own, and modernize-sources writes with our mask.
    closed = "find /etc/apt/sources.list.d -type f ! -perm -0004"
    return [
        Live("sources of packages that any key may sign", look, "0", "(umask 022; apt -qq -y modernize-sources)"),
        Live("sources of packages that apt cannot read", closed, "", f"{closed} -exec chmod 644 {{}} +"),
    ]
