"""What the sweep does about what it finds: `sweep:` of instance.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mastodon_gov.instance.types import Part

Report = Literal["report"]
ReportOrDisable = Literal["report", "disable"]
ReportOrRevoke = Literal["report", "revoke"]
Days = Annotated[int, Field(ge=1, le=3650, strict=True)]


class Act(Part):
    """What happens to a finding: `report`, or besides that `disable` (the account may not sign in or post; everything
    of it stays) or `revoke` (the link or token is dead). Nothing is ever deleted or suspended, and the owner's account
    is never disabled. What is not in this table is reported."""

    foreign_address: ReportOrDisable = "disable"
    """An account whose address is at no domain of organisations.yaml."""
    account_not_in_file: ReportOrDisable = "report"
    """An account that organisations.yaml does not list, once it lists any."""
    missing_second_factor: ReportOrDisable = "report"
    """An account that needs a second factor and has none after `second_factor_days`."""
    invite_outside_ledger: ReportOrRevoke = "revoke"
    """A link to sign up that `mastodon-gov invite` did not make."""
    unknown_application: ReportOrRevoke = "report"
    """A token of an application that neither `applications` nor the account's `tools` name."""
    dormant_account: ReportOrDisable = "report"
    """An account nobody signed in to and no program used for `dormant_days`."""


class Sweep(Part):
    """The sweep compares live accounts, roles, settings and links with the files: every 40 s and after each deploy."""

    act: Act = Act()
    applications: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = ()
    """Names of applications that any account may use, as they call themselves. Mastodon's own pages need no entry."""
    second_factor_days: Days = 3
    """Days a new account has until a missing second factor is a finding."""
    unverified_days: Days = 14
    """Days an account has until it shows a verified link to a site of its organisation."""
    dormant_days: Days = 180
    """Days without use after which an account is called dormant."""
