"""Hosts of the demo: which part of the instance runs on which machine."""

from mastodon_gov.inventory import groups

# One host carries everything, and stands in every group.
# Addresses of the hosts stand in addresses.yaml; a host not listed there is looked up by its name.
globals().update(
    groups(
        __file__,
        {
            "database": ["social"],
            "redis": ["social"],
            "mastodon": ["social"],
            "proxy": ["social"],
        },
    )
)
