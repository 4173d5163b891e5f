"""Local Debian 13 machines for the demo and the tests: systemd-nspawn, one base, one overlay per machine.

Who needs a machine uses `mastodon_gov.lab.lab`; the other modules hold one mechanism each.
"""
