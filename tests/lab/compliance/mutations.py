# ruff: noqa: E501, S608 - commands are data, and easier to read whole
"""What breaks each check of the audit, and nothing else: data for test_mutations.py.

A key is a role, then the checks that one command must redden (`name` or `name[parameter]`), separated by spaces. Where
a deploy does not put things right, because they are none of its own, `HEAL` has the command.
"""

from __future__ import annotations

Commands = dict[str, str]

APT, SUDOERS, SYSCTL = "/etc/apt/apt.conf.d", "/etc/sudoers.d", "sysctl -q -w"
IPV4 = {
    "accept_redirects": 1,
    "send_redirects": 1,
    "secure_redirects": 1,
    "accept_source_route": 1,
    "rp_filter": 0,
    "log_martians": 0,
}
IPV6 = ("accept_redirects", "accept_source_route", "forwarding")
JOURNAL = {"Storage": "volatile", "Compress": "no", "SystemMaxUse": "", "MaxRetentionSec": "1day"}
SUDO = {"use_pty": "!use_pty", "logfile": "logfile=/root/x", "ignore_dot": "!ignore_dot", "umask": "umask=0022"}
SUDO |= {"timestamp_timeout": "timestamp_timeout=15"}
DROPIN = "/etc/systemd/system/{}.d"


def dropin(unit: str, setting: str) -> str:
    """A setting of somebody else's, in force."""
    place = DROPIN.format(unit)
    return (
        f"mkdir -p {place} && printf '[Service]\\n{setting}\\n' > {place}/99-mutation.conf && "
        f"systemctl daemon-reload && systemctl restart {unit}"
    )


BASE: Commands = {
    "test_debian_13": "sed -i 's/^VERSION_ID=.*/VERSION_ID=\"12\"/' /usr/lib/os-release",
    "test_no_needless_package[telnetd]": "printf '\\nPackage: telnetd\\nStatus: install ok installed\\nMaintainer: x\\n"
    "Architecture: all\\nVersion: 1\\nDescription: x\\n\\n' >> /var/lib/dpkg/status",
    "test_packages_bring_no_company[APT::Install-Recommends]": f"echo 'APT::Install-Recommends \"1\";' > {APT}/99-a",
    "test_packages_bring_no_company[APT::Install-Suggests]": f"echo 'APT::Install-Suggests \"1\";' > {APT}/99-b",
    "test_unsigned_packages_are_refused": f"echo 'APT::Get::AllowUnauthenticated \"1\";' > {APT}/99-c",
    "test_sources_name_their_keys": "echo 'deb http://x.invalid/ trixie main' > /etc/apt/sources.list.d/x.list",
    "test_only_our_sockets": "systemd-run -q --unit=mutation-socket python3 -m http.server 8099",
    "test_no_unit_failed": "systemd-run -q --unit=mutation-failed false",
    "test_no_programs_where_everybody_writes[/tmp]": "mount -o remount,exec /tmp",
    "test_no_programs_where_everybody_writes[/dev/shm]": "mount -o remount,exec /dev/shm",
    **{
        f"test_ipv4_trusts_no_router[{each}-{name}]": f"{SYSCTL} net.ipv4.conf.{each}.{name}={value}"
        for each in ("all", "default")
        for name, value in IPV4.items()
    },
    "test_ipv4_routes_for_nobody[tcp_syncookies-1]": f"{SYSCTL} net.ipv4.tcp_syncookies=0",
    **{
        f"test_ipv6_trusts_no_router[{each}-{name}]": f"{SYSCTL} net.ipv6.conf.{each}.{name}=1"
        for each in ("all", "default")
        for name in IPV6
        if (each, name) != ("all", "forwarding")
    },
    # The kernel copies this one from `all` to `default`.
    "test_ipv6_trusts_no_router[all-forwarding] test_ipv6_trusts_no_router[default-forwarding]": f"{SYSCTL} "
    "net.ipv6.conf.all.forwarding=1",
    "test_no_core_in_a_sign_in": "printf 'root hard core unlimited\\n* hard core unlimited\\n' > /etc/security/limits.d/99-mutation.conf",
    "test_no_core_is_kept[Storage-none]": "printf '[Coredump]\\nStorage=external\\n' > /etc/systemd/coredump.conf.d/99-a.conf",
    "test_no_core_is_kept[ProcessSizeMax-0]": "printf '[Coredump]\\nProcessSizeMax=1G\\n' > /etc/systemd/coredump.conf.d/99-b.conf",
    "test_every_file_has_one_master[unowned]": "touch /var/lib/mutation && chown 12345 /var/lib/mutation",
    "test_every_file_has_one_master[writable]": "touch /etc/mutation && chmod 666 /etc/mutation",
    "test_setuid_programs_are_debian_s": "cp /bin/true /usr/local/bin/mutation && chmod 4755 /usr/local/bin/mutation",
    "test_cron_is_root_s": "chmod 755 /etc/cron.d",
    "test_only_root_has_a_crontab": "echo nobody >> /etc/cron.allow",
    **{
        f"test_the_journal_lasts[{name}]": f"printf '[Journal]\\n{name}={value}\\n' > /etc/systemd/journald.conf.d/99-{name}.conf"
        for name, value in JOURNAL.items()
    },
    "test_logs_are_not_for_everybody": "chmod 644 /var/log/dpkg.log",
    "test_security_updates_come_by_themselves": "systemctl disable -q apt-daily-upgrade.timer",
    "test_the_last_update_worked": "install -d /var/lib/apt/periodic && "
    "touch -d '9 days ago' /var/lib/apt/periodic/unattended-upgrades-stamp",
    "test_people_are_declared": "useradd -m -s /bin/bash -u 4242 mutation",
    "test_only_root_is_root[users] test_only_root_is_root[first_groups]": "echo mut0:x:0:0::/:/usr/sbin/nologin >> /etc/passwd",
    "test_only_root_is_root[groups]": "echo mut0:x:0: >> /etc/group",
    "test_root_has_no_password": "usermod -p '$y$x' root",
    "test_system_accounts_cannot_sign_in": "usermod -s /bin/bash games",
    "test_no_password_is_empty test_system_accounts_are_locked": "usermod -p '' irc",
    "test_passwords_are_kept_with_yescrypt": "sed -i 's/^ENCRYPT_METHOD.*/ENCRYPT_METHOD SHA512/' /etc/login.defs",
    "test_passwords_are_good[minlen-16]": "echo 'minlen = 8' >> /etc/security/pwquality.conf",
    "test_passwords_are_good[dictcheck-1]": "echo 'dictcheck = 0' >> /etc/security/pwquality.conf",
    "test_passwords_are_good[enforce_for_root-]": "sed -i /enforce/d /etc/security/pwquality.conf.d/60-mfg.conf",
    "test_passwords_are_good[used-True]": "sed -i /pam_pwquality/d /etc/pam.d/common-password",
    "test_guessing_closes_an_account[common-auth]": "sed -i s/deny=3/deny=30/ /etc/pam.d/common-auth",
    "test_guessing_closes_an_account[common-account]": "sed -i /pam_faillock/d /etc/pam.d/common-account",
    "test_new_homes_are_private": "sed -i 's/^UMASK.*/UMASK 022/' /etc/login.defs",
    "test_an_open_shell_ends[umask-0027]": "echo 'umask 022' > /etc/profile.d/99-mutation.sh",
    "test_an_open_shell_ends[timeout-600]": "sed -i s/TMOUT=600/TMOUT=6000/ /etc/profile.d/60-mfg.sh",
    "test_an_open_shell_ends[fixed-True]": "sed -i 's/readonly TMOUT;//' /etc/profile.d/60-mfg.sh",
    "test_su_is_for_one_group": "sed -i /pam_wheel/d /etc/pam.d/su",
    "test_nobody_is_in_that_group": "gpasswd -a nobody sugroup",
    **{
        f"test_sudo_keeps_a_record[{name}]": f"echo 'Defaults {value}' > {SUDOERS}/99-{name}"
        for name, value in SUDO.items()
    },
    "test_sudo_asks_everybody_else test_nobody_else_has_a_rule": f"echo 'x ALL=(ALL) NOPASSWD: ALL' > {SUDOERS}/99-x",
    "test_sudo_asks_everybody_else": f"echo 'Defaults !authenticate' > {SUDOERS}/99-y",
    "test_groups_with_rights[sudo]": "gpasswd -a nobody sudo",
    "test_groups_with_rights[mfg-deploy]": "gpasswd -a nobody mfg-deploy",
    "test_the_sandbox_is_tight[redis] test_the_process_has_no_rights[redis] test_the_unit_is_ours[redis]": dropin(
        "redis-server.service", "CapabilityBoundingSet=CAP_NET_ADMIN"
    ),
    "test_the_sandbox_is_tight[postgresql] test_the_process_cannot_change_programs[postgresql] "
    "test_the_unit_is_ours[postgresql]": dropin("postgresql@17-main.service", "ProtectSystem=no"),
    "test_the_sandbox_is_tight[nginx] test_only_compilers_write_programs[nginx] test_the_unit_is_ours[nginx]": dropin(
        "nginx.service", "MemoryDenyWriteExecute=no"
    ),
    "test_the_unit_is_what_is_written[redis]": f"echo '# x' >> {DROPIN.format('redis-server.service')}/60-mfg.conf",
    # Last, because the programs above make these copies anew.
    "test_files_of_accounts[passwd]": "chmod 666 /etc/passwd-",
    "test_files_of_accounts[group]": "chmod 666 /etc/group-",
    "test_files_of_accounts[shadow]": "chmod 644 /etc/shadow-",
    "test_files_of_accounts[gshadow]": "chmod 644 /etc/gshadow-",
}
BASE_HEAL = f"""
sed -i 's/^VERSION_ID=.*/VERSION_ID="13"/' /usr/lib/os-release
sed -i '/^Package: telnetd$/,/^$/d' /var/lib/dpkg/status; rm -f {APT}/99-* /etc/apt/sources.list.d/x.list /etc/systemd/coredump.conf.d/99-*
rm -f /var/lib/mutation /etc/mutation /usr/local/bin/mutation /etc/systemd/journald.conf.d/99-* {SUDOERS}/99-* /etc/security/limits.d/99-mutation.conf
rm -f /var/lib/apt/periodic/unattended-upgrades-stamp /etc/profile.d/99-mutation.sh
systemctl stop mutation-socket; systemctl reset-failed mutation-failed
sed -i /^mut0:/d /etc/passwd /etc/group; userdel -r mutation 2>/dev/null; usermod -s /usr/sbin/nologin games
usermod -p '*' irc; sed -i -e '/^minlen = 8/d' -e '/^dictcheck = 0/d' /etc/security/pwquality.conf
gpasswd -d nobody sudo; gpasswd -d nobody mfg-deploy
rm -f /etc/systemd/system/*.d/99-mutation.conf; systemctl daemon-reload
systemctl restart redis-server postgresql@17-main nginx
"""
SSHD = {
    "PermitRootLogin yes": "test_root_cannot_sign_in",
    "PasswordAuthentication yes": "test_no_passwords[passwordauthentication]",
    "KbdInteractiveAuthentication yes": "test_no_passwords[kbdinteractiveauthentication]",
    "PermitEmptyPasswords yes": "test_no_passwords[permitemptypasswords]",
    "AuthenticationMethods any": "test_keys_only",
    "AllowGroups mfg-admin mfg-deploy mfg-audit games": "test_only_our_groups",
    "KexAlgorithms curve25519-sha256": "test_only_strong_algorithms[kexalgorithms]",
    "Ciphers aes256-gcm@openssh.com,aes128-ctr": "test_only_strong_algorithms[ciphers]",
    "MACs hmac-sha2-256": "test_only_strong_algorithms[macs]",
    "HostKeyAlgorithms ssh-ed25519,ecdsa-sha2-nistp256": "test_only_strong_algorithms[hostkeyalgorithms]",
    "RequiredRSASize 1024": "test_only_strong_algorithms[requiredrsasize]",
    "DisableForwarding no": "test_nothing_is_forwarded[disableforwarding]",
    "AllowTcpForwarding yes": "test_nothing_is_forwarded[allowtcpforwarding]",
    "AllowAgentForwarding yes": "test_nothing_is_forwarded[allowagentforwarding]",
    "AllowStreamLocalForwarding yes": "test_nothing_is_forwarded[allowstreamlocalforwarding]",
    "X11Forwarding yes": "test_nothing_is_forwarded[x11forwarding]",
    "PermitTunnel yes": "test_nothing_is_forwarded[permittunnel]",
    "GatewayPorts yes": "test_nothing_is_forwarded[gatewayports]",
    "PermitUserRC yes": "test_nothing_is_forwarded[permituserrc]",
    "MaxAuthTries 6": "test_tries_and_sessions_end[maxauthtries]",
    "MaxSessions 10": "test_tries_and_sessions_end[maxsessions]",
    "LoginGraceTime 120": "test_tries_and_sessions_end[logingracetime]",
    "ClientAliveInterval 0": "test_tries_and_sessions_end[clientaliveinterval]",
    "ClientAliveCountMax 9": "test_tries_and_sessions_end[clientalivecountmax]",
    "Banner none": "test_people_are_warned_and_recorded[banner]",
    "LogLevel INFO": "test_people_are_warned_and_recorded[loglevel]",
    "UsePAM no": "test_people_are_warned_and_recorded[usepam]",
    "AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/keys/%u": "test_sshd_reads_no_other_keys[authorizedkeysfile]",
    "TrustedUserCAKeys /etc/ssh/keys/deploy": "test_sshd_reads_no_other_keys[trustedusercakeys]",
    "AuthorizedPrincipalsFile /etc/ssh/principals": "test_sshd_reads_no_other_keys[authorizedprincipalsfile]",
    "HostbasedAuthentication yes": "test_sshd_reads_no_other_keys[hostbasedauthentication]",
}
# `sshd -T` says what the next start would use; the running one is not touched, or nobody could sign in to heal it.
SSH: Commands = {
    **{check: f"echo '{line}' >> /etc/ssh/sshd_config.d/00-mutation.conf" for line, check in SSHD.items()},
    **{
        f"test_sshd_reads_no_other_keys[{name.lower()}]": f"printf '{name} /bin/true\\n{name}User nobody\\n' >> "
        "/etc/ssh/sshd_config.d/00-mutation.conf"
        for name in ("AuthorizedKeysCommand", "AuthorizedPrincipalsCommand")
    },
    # `sshd -T` alone does not show what a Match block gives.
    "test_root_cannot_sign_in test_no_passwords[passwordauthentication] test_keys_only": "printf 'Match User root Address "
    "203.0.113.0/24\\nPermitRootLogin yes\\nPasswordAuthentication yes\\nAuthenticationMethods any\\n' > "
    "/etc/ssh/sshd_config.d/98-mutation.conf",
    # Of this one alone sshd takes the last line, not the first.
    "test_tries_and_sessions_end[maxstartups]": "echo 'MaxStartups 20:30:100' > /etc/ssh/sshd_config.d/99-mutation.conf",
    "test_host_keys": "ssh-keygen -q -t rsa -b 2048 -N '' -f /etc/ssh/mutation && "
    "echo 'HostKey /etc/ssh/mutation' >> /etc/ssh/sshd_config.d/00-mutation.conf",
    "test_accounts_with_keys_are_declared test_keys_are_root_s_and_declared": "cp /etc/ssh/keys/deploy /etc/ssh/keys/x",
}
SSH_HEAL = "rm -f /etc/ssh/sshd_config.d/??-mutation.conf /etc/ssh/mutation /etc/ssh/mutation.pub /etc/ssh/keys/x"

NFT = "nft insert rule inet mfg"
CONFIRMED = "test_the_rules_are_those_confirmed"
FIREWALL: Commands = {
    **{
        f"test_nothing_passes_by_itself[{hook}] {CONFIRMED}": f"nft chain inet mfg {hook} '{{ policy accept; }}'"
        for hook in ("input", "forward", "output")
    },
    f"test_only_the_web_comes_in {CONFIRMED}": f"{NFT} input tcp dport 8080 accept",
    f"test_ssh_answers_only_admin_networks[4] {CONFIRMED}": "nft add element inet mfg admin4 '{ 192.0.2.0/24 }'",
    f"test_ssh_answers_only_admin_networks[6] {CONFIRMED}": "nft add element inet mfg admin6 '{ 2001:db8::/32 }'",
    f"test_the_application_reaches_what_is_declared {CONFIRMED}": f"{NFT} output meta skuid mastodon tcp dport 22 accept",
    f"test_other_accounts_reach_what_is_declared {CONFIRMED}": f"{NFT} output meta skuid www-data tcp dport 9 accept",
    f"test_these_accounts_reach_nothing[redis] test_other_accounts_reach_what_is_declared {CONFIRMED}": f"{NFT} output "
    "meta skuid redis accept",
    f"test_these_accounts_reach_nothing[nobody] test_other_accounts_reach_what_is_declared {CONFIRMED}": f"{NFT} output "
    "meta skuid nobody accept",
    "test_the_rules_come_back_after_a_restart": "systemctl disable -q nftables.service",
    "test_no_change_waits_for_confirmation": "systemd-run -q --unit=mfg-mutation-rollback --on-active=3600 true",
}
FIREWALL_HEAL = "systemctl stop mfg-mutation-rollback.timer"

KEY = "$(readlink -f /etc/mastodon-gov/tls/current/privkey.pem)"
CERTIFICATES: Commands = {
    "test_it_is_renewed[timer]": "systemctl stop certbot.timer",
    "test_it_is_renewed[enabled]": "systemctl disable -q certbot.timer",
    "test_it_is_renewed[hook]": "chmod -x /etc/letsencrypt/renewal-hooks/deploy/60-mfg-nginx",
    "test_the_key_is_root_s[mode-0600]": f"chmod 644 {KEY}",
    "test_the_key_is_root_s[owner-root:root]": f"chown www-data {KEY}",
}
CERTIFICATES_HEAL = ""

OVERRIDE = "test_settings_come_from_our_files"
SETTINGS = {
    "password_encryption = md5": "test_passwords_are_kept_with_scram",
    "log_connections = off": "test_acts_are_logged_and_values_are_not[log_connections]",
    "log_disconnections = off": "test_acts_are_logged_and_values_are_not[log_disconnections]",
    "log_statement = none": "test_acts_are_logged_and_values_are_not[log_statement]",
    "log_parameter_max_length = -1": "test_acts_are_logged_and_values_are_not[log_parameter_max_length]",
    "log_parameter_max_length_on_error = -1": "test_acts_are_logged_and_values_are_not[log_parameter_max_length_on_error]",
    "log_line_prefix = '%m'": "test_a_log_line_says_who",
    "jit = on": "test_no_compiler",
}


def sql(text: str) -> str:
    """A statement as postgres in the application's database."""
    return f'runuser -u postgres -- psql -qX -v ON_ERROR_STOP=1 -d mastodon_production -c "{text}"'


POSTGRESQL: Commands = {
    **{
        f"{check} {OVERRIDE}": sql(f"ALTER SYSTEM SET {line}") + " -c 'SELECT pg_reload_conf()' >/dev/null"
        for line, check in SETTINGS.items()
    },
    f"test_it_listens_to_nobody_else test_what_crosses_the_network_is_encrypted {OVERRIDE}": sql(
        "ALTER SYSTEM SET listen_addresses = '*'"
    )
    + " && systemctl restart postgresql@17-main",
    "test_nobody_signs_in_without_proof": "echo 'host all all 0.0.0.0/0 trust' >> /etc/postgresql/17/main/pg_hba.conf",
    "test_no_password_is_kept_with_md5": sql("SET password_encryption = md5; CREATE ROLE mutation PASSWORD 'x'"),
    "test_the_application_has_no_rights_over_the_server[mastodon]": sql("ALTER ROLE mastodon CREATEDB"),
    "test_the_application_has_no_rights_over_the_server[mastodon_owner]": sql("ALTER ROLE mastodon_owner CREATEROLE"),
    "test_nobody_else_is_superuser": sql("CREATE ROLE mutation_super SUPERUSER"),
    "test_not_everybody_may_connect": sql("GRANT CONNECT ON DATABASE mastodon_production TO PUBLIC"),
    "test_data_and_settings_are_private": "chmod 750 /var/lib/postgresql/17/main",
    "test_extensions": sql("CREATE EXTENSION pgcrypto"),
    "test_nobody_starts_programs": sql("GRANT pg_execute_server_program TO mutation_super"),
}
POSTGRESQL_HEAL = sql(
    "DROP ROLE IF EXISTS mutation; DROP ROLE IF EXISTS mutation_super; DROP EXTENSION IF EXISTS pgcrypto"
)

ACL, CONF = "/etc/redis/users.acl", "/etc/redis/redis.conf"
REDIS: Commands = {
    "test_nobody_without_a_name": f"sed -i 's/^user default.*/user default on nopass +ping/' {ACL}",
    "test_only_our_users": f"echo 'user mutation off' >> {ACL}",
    "test_the_application_does_not_administer[-@dangerous] test_the_application_does_not_administer[-@admin]": f"sed -i '/^user mastodon/s/$/ +flushall/' {ACL}",
    "test_the_audit_sees_no_data": f"sed -i '/^user audit/s/$/ ~* +get/' {ACL}",
    "test_protected_mode": f"sed -i 's/^protected-mode.*/protected-mode no/' {CONF}",
    "test_it_listens_to_the_host": f"sed -i 's/^bind.*/bind 0.0.0.0/' {CONF}",
    "test_no_job_is_thrown_away[maxmemory-policy-noeviction]": f"sed -i 's/^maxmemory-policy.*/maxmemory-policy allkeys-lru/' {CONF}",
    "test_no_job_is_thrown_away[appendonly-yes]": f"sed -i 's/^appendonly.*/appendonly no/' {CONF}",
}
REDIS_APPLY = "systemctl restart redis-server.service"

HEADERS = {
    "x-forwarded-for": ("X-Forwarded-For $remote_addr", "X-Forwarded-For $proxy_add_x_forwarded_for"),
    "x-real-ip": ("X-Real-IP $remote_addr", "X-Real-IP $http_x_real_ip"),
    "x-forwarded-proto": ("X-Forwarded-Proto https", "X-Forwarded-Proto $scheme"),
    **{
        name.lower(): (f'{name} ""', f"{name} $http_{name.lower().replace('-', '_')}")
        for name in ("Client-IP", "Forwarded", "X-Forwarded-Host", "X-Forwarded-Port", "Proxy")
    },
}
NGINX: Commands = {
    **{
        f"test_visitors_cannot_name_their_address[{name}]": "sed -i 's/proxy_set_header "
        f"{old.replace('$', '[$]')};/proxy_set_header {new};/' /etc/nginx/nginx.conf"
        for name, (old, new) in HEADERS.items()
    },
    "test_logs_are_rotated[rotate]": "sed -i 's/rotate 14/rotate 99/' /etc/logrotate.d/nginx",
    "test_logs_are_rotated[maxage]": "sed -i 's/maxage 14/maxage 99/' /etc/logrotate.d/nginx",
    "test_rotation_runs": "systemctl disable -q logrotate.timer",
    "test_addresses_of_visitors_go": "touch -d '30 days ago' /var/log/nginx/access.log.98",
    "test_no_query_is_logged": "echo 'x [2099-01-01T00:00:00+00:00] h \"GET /oauth?code=1 H\"' > /var/log/nginx/access.log.99",
}
NGINX_HEAL = "rm -f /var/log/nginx/access.log.98 /var/log/nginx/access.log.99"

MAIL: Commands = {
    "test_mail_of_the_host_is_encrypted[tls]": "sed -i 's/^tls on/tls off/' /etc/msmtprc",
    "test_mail_of_the_host_is_encrypted[tls_starttls]": "sed -i 's/^tls_starttls on/tls_starttls off/' /etc/msmtprc",
    "test_mail_of_the_host_is_encrypted[tls_certcheck]": "sed -i 's/^tls_certcheck on/tls_certcheck off/' /etc/msmtprc",
    "test_mail_goes_to_the_relay": "sed -i 's/^host .*/host mail.outside.test/' /etc/msmtprc",
    "test_the_relay_s_password_is_root_s": "chmod 644 /etc/msmtprc",
    "test_nothing_takes_mail": "systemd-run -q --unit=mutation-mail python3 -m http.server 25",
}
MAIL_HEAL = "systemctl stop mutation-mail"

DRILLS, ESCROW = "/var/lib/mastodon-gov/drills", "/var/lib/mastodon-gov/escrow.json"
BACKUPS: Commands = {
    "test_their_keys_are_private": "chmod 644 /etc/pgbackrest.conf",
    "test_the_host_sees_nothing_wrong": 'runuser -u postgres -- psql -XqAtd postgres -c "insert into mfg.heartbeat '
    "values (now() + interval '1 hour', pg_current_wal_insert_lsn())\"",
    "test_the_next_one_is_planned": "systemctl stop mfg-backup.timer",
    "test_a_restore_was_proved test_its_evidence_is_signed": f"mkdir -p {DRILLS} && "
    f'echo \'{{"rc": 0, "at": 1, "label": "x", "rto_s": 1}}\' > {DRILLS}/99991231T235959Z.json',
    "test_the_envelope_holds_the_key_in_use": f'echo \'{{"fingerprint": "00", "at": 1}}\' > {ESCROW}',
}
BACKUPS_HEAL = (
    f"rm -f {DRILLS}/99991231T235959Z.json {ESCROW}; "
    "runuser -u postgres -- psql -XqAtd postgres -c 'delete from mfg.heartbeat where at > now()'"
)

ENV = "/etc/mastodon/mastodon.env"
UNLOCKED = "SET event_triggers = off; ALTER TABLE {0} DISABLE TRIGGER USER; {1}"
LOCK = "test_the_database_keeps_its_lock"
STALE = " ".join(f"test_processes_have_what_is_written[{kind}]" for kind in ("web", "sidekiq", "streaming"))
SECRET = f"$(sed -n s/^SECRET_KEY_BASE=//p {ENV})"
# Rails keeps a setting for ten minutes, whatever the table says.
FORGET = (
    f"URL=$(sed -n s/^REDIS_URL=//p {ENV}); redis-cli -u \"$URL\" --no-auth-warning --scan --pattern '*registrations_mode' "
    '| xargs -r redis-cli -u "$URL" --no-auth-warning DEL >/dev/null'
)
MASTODON: Commands = {
    f"{LOCK} test_everyone_has_no_rights": sql(
        UNLOCKED.format("user_roles", "UPDATE user_roles SET permissions = 65536 WHERE id = -99")
    ),
    f"{LOCK} test_administrators_are_declared": sql(
        UNLOCKED.format(
            "users",
            "UPDATE users SET role_id = (SELECT id FROM user_roles WHERE name = 'Moderator') "
            "WHERE role_id = (SELECT id FROM user_roles WHERE name = 'Owner')",
        )
    ),
    f"{LOCK} test_nobody_lets_in_without_approval": sql(
        UNLOCKED.format(
            "user_roles", "UPDATE user_roles SET permissions = permissions | 2097152 WHERE name = 'Moderator'"
        )
    ),
    f"{LOCK} test_every_role_asks_for_a_second_factor": sql(
        UNLOCKED.format("user_roles", "UPDATE user_roles SET require_2fa = false WHERE name = 'Moderator'")
    ),
    f"{LOCK} test_registration_is_closed_in_the_tables test_registration_is_closed_to_visitors[*]": sql(
        UNLOCKED.format(
            "settings",
            "INSERT INTO settings (var, value, created_at, updated_at) VALUES ('registrations_mode', E'--- open\\n', now(), "
            "now()) ON CONFLICT (var) DO UPDATE SET value = excluded.value",
        )
    )
    + f" && {FORGET}",
    f"{LOCK} test_invitations_are_for_one": sql(
        UNLOCKED.format(
            "invites",
            "INSERT INTO invites (user_id, code, created_at, updated_at) SELECT min(id), 'mutation', now(), now() FROM users",
        )
    ),
    f"{LOCK} test_addresses_are_staff_s": sql(
        UNLOCKED.format(
            "users", "UPDATE users SET unconfirmed_email = 'x@outside.test' WHERE id = (SELECT min(id) FROM users)"
        )
    ),
    "test_no_token_is_idle": sql(
        "INSERT INTO oauth_access_tokens (token, resource_owner_id, created_at) "
        "SELECT 'mutation', min(id), now() - interval '1 year' FROM users"
    ),
    "test_blocks_are_declared": sql(
        "INSERT INTO domain_blocks (domain, created_at, updated_at) VALUES ('mutation.test', now(), now())"
    ),
    "test_texts_are_declared": sql("UPDATE settings SET value = E'--- mutation\\n' WHERE var = 'site_title'"),
    "test_the_environment_is_private": f"chmod 644 {ENV}",
    f"test_no_forbidden_switch {STALE}": f"echo SINGLE_USER_MODE=false >> {ENV}",
    f"test_addresses_are_forgotten[IP_RETENTION_PERIOD] {STALE}": f"sed -i s/^IP_RETENTION_PERIOD=/\\&9/ {ENV}",
    f"test_addresses_are_forgotten[SESSION_RETENTION_PERIOD] {STALE}": f"sed -i s/^SESSION_RETENTION_PERIOD=/\\&9/ {ENV}",
    f"test_the_list_counts_after_confirmation_too {STALE}": f"sed -i '/APPLY_AFTER_CONFIRMATION/s/true/false/' {ENV}",
    f"test_keys_are_our_own[different-True] {STALE}": f'sed -i "s/^SECRET_KEY_BASE=.*/SECRET_KEY_BASE='
    f'$(sed -n s/^ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY=//p {ENV})/" {ENV}',
    "test_no_secret_is_shown[units]": f'echo "# {SECRET}" > /etc/systemd/system/mutation.conf',
    "test_the_account_runs_nothing_else": "systemd-run -q --unit=mutation-stranger -p User=mastodon sleep 3600",
    "test_the_release_is_what_was_signed": "cp -p /opt/mastodon/current/Gemfile /root/Gemfile.kept && "
    "echo '#' >> /opt/mastodon/current/Gemfile",
    # What somebody does who knows of the manifest: the changed file's new digest stands in it.
    "test_the_release_was_signed": "cd /opt/mastodon/current && cp -p config.ru MANIFEST.sha256 /root/ && "
    "echo '#' >> config.ru && sed -i \"s/^[0-9a-f]*  config.ru$/$(sha256sum config.ru)/\" MANIFEST.sha256",
    "test_no_migration_waits": sql(
        "CREATE TABLE public.mutation AS SELECT max(version) v FROM schema_migrations; "
        "DELETE FROM schema_migrations WHERE version = (SELECT v FROM public.mutation)"
    ),
}
MASTODON_HEAL = "\n".join(
    (
        sql(
            "SET event_triggers = off; INSERT INTO schema_migrations SELECT v FROM public.mutation; DROP TABLE public.mutation"
        ),
        sql("DELETE FROM oauth_access_tokens WHERE token = 'mutation'; DELETE FROM invites WHERE code = 'mutation'"),
        sql(
            "UPDATE users SET role_id = (SELECT id FROM user_roles WHERE name = 'Owner') "
            "WHERE role_id = (SELECT id FROM user_roles WHERE name = 'Moderator')"
        ),
        sql("UPDATE users SET unconfirmed_email = NULL; DELETE FROM settings WHERE var = 'registrations_mode'"),
        sql("DELETE FROM domain_blocks WHERE domain = 'mutation.test'"),
        sql("UPDATE settings SET value = E'--- Demonstration Social\\n' WHERE var = 'site_title'"),
        FORGET,
        "systemctl stop mutation-stranger; rm -f /etc/systemd/system/mutation.conf",
        "cp -p /root/Gemfile.kept /opt/mastodon/current/Gemfile; rm -f /root/Gemfile.kept",
        "cd /root && cp -p config.ru MANIFEST.sha256 /opt/mastodon/current/; rm -f config.ru MANIFEST.sha256",
    )
)

NGINX_CONF, EDIT = "/etc/nginx/nginx.conf", "sed -i"
OUTSIDE: Commands = {
    "test_browsers_always_use_https[*]": f"{EDIT} 's/max-age=63072000; includeSubDomains/max-age=60/' {NGINX_CONF}",
    "test_no_guessing_of_types[*]": f"{EDIT} 's/ nosniff always/ guess always/' {NGINX_CONF}",
    "test_http_leads_to_https[*]": f"{EDIT} 's#return 301 https://#return 302 http://#' {NGINX_CONF}",
    "test_no_versions[*]": f"{EDIT} 's/server_tokens off/server_tokens on/' {NGINX_CONF}",
    "test_modern_tls_is_accepted[1.3]": f"{EDIT} 's/^    ssl_protocols TLSv1.2 TLSv1.3/    ssl_protocols TLSv1.2/' {NGINX_CONF}",
    "test_citizens_can_read[/about]": f"{EDIT} 's#location = /api/v1/accounts {{#location = /about {{ return 404; }} &#' "
    f"{NGINX_CONF}",
    "test_finders_know_whom_to_write_to": f"{EDIT} /^Contact/d /usr/local/share/mastodon-gov/security.txt",
    "test_only_the_web_answers[*]": f"{NFT} input tcp dport 8080 accept && "
    "systemd-run -q --unit=mutation-web python3 -m http.server 8080",
}
OUTSIDE_HEAL = "systemctl stop mutation-web"

MUTATIONS: dict[str, Commands] = {
    "outside": OUTSIDE,
    "base": BASE,
    "ssh": SSH,
    "firewall": FIREWALL,
    "certificates": CERTIFICATES,
    "postgresql": POSTGRESQL,
    "redis": REDIS,
    "nginx": NGINX,
    "mail": MAIL,
    "backups": BACKUPS,
    "mastodon": MASTODON,
}
# What makes a running service read what was broken.
APPLY = {"redis": REDIS_APPLY, "outside": "nginx -t -q && systemctl reload nginx"}
HEAL = {
    "outside": OUTSIDE_HEAL,
    "base": BASE_HEAL,
    "ssh": SSH_HEAL,
    "firewall": FIREWALL_HEAL,
    "certificates": CERTIFICATES_HEAL,
    "postgresql": POSTGRESQL_HEAL,
    "nginx": NGINX_HEAL,
    "mail": MAIL_HEAL,
    "backups": BACKUPS_HEAL,
    "mastodon": MASTODON_HEAL,
}
# Takes back one mutation that shares a check with others, without a deploy: every check heals by deploy when all of its
# role are broken together.
UNDO = {
    "firewall": "nft -f /etc/nftables.conf",
    "postgresql": sql("ALTER SYSTEM RESET ALL") + " && systemctl restart postgresql@17-main",
}
# Controls with checks that nothing here breaks, and why.
NOT_BROKEN = {
    "MFG-OS-10": "The kernel is shared with the machine that runs the lab.",
    "MFG-OS-11": "The kernel is shared with the machine that runs the lab.",
    "MFG-OS-12": "The kernel is shared with the machine that runs the lab.",
    "MFG-OS-15": "Modules belong to the machine that runs the lab.",
    "MFG-OS-22": "The clock is shared with the machine that runs the lab.",
    "MFG-UPD-02": "The kernel, and so a restart for it, belongs to the machine that runs the lab.",
    "MFG-UPD-03": "In a lab no list of releases is of this month; tests/unit/test_audit_checks.py has one.",
    "MFG-GOV-01": "It reads instance.yaml; test_audit.py takes a name out and sees it red.",
    "MFG-UPD-04": "The versions are those of Debian 13 and of the release; none is at its end today.",
    "MFG-USR-09": "An account that is 90 days old and in mfg-admin would also break USR-01 and SUDO-03.",
    "MFG-SBX-05": "Limits of memory are not enforced in a container on a host with hybrid control groups.",
    "MFG-APP-07": "The demo lists no accounts; test_audit.py lists one that is not there and sees it red.",
    "MFG-WEB-07": "It provokes, and runs only with --probe.",
    "MFG-CRT-01": "A certificate that does not verify ends every other request from outside too.",
    "MFG-S3-01": "Only the key of the buckets' owner opens them; tests/lab/storage opens them and sees it.",
    "MFG-LOG-05": "A secret in the journal cannot be taken out again; the machine would have to be made anew.",
    "MFG-SUP-03": "The list of parts is in the manifest: to change it breaks SUP-01.",
}
