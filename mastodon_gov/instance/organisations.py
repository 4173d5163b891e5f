"""Who may speak on this server: the bodies and the official accounts of `organisations.yaml`.

Rules between these values are in `organisation_rules.py`; what a verb writes into the file in `organisation_file.py`.
The text below a field is its documentation (docs/it-team/instance.md).
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from mastodon_gov.instance.types import Allowed, Domain, Flag, Locale, MailAddress, Part, Word

Day = Annotated[date, Allowed("a day such as 2026-11-21")]
Name = Annotated[str, Field(min_length=2, max_length=200), Allowed("text of 2 to 200 characters")]
# Mastodon's own form of a user name (`[A-Za-z0-9_]`, 30 characters); capitals are kept and count for nothing.
AccountHandle = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_]{1,30}$"),
    Allowed("1 to 30 letters a to z, digits and underscores, without the @"),
]
HandlePattern = Annotated[
    str,
    Field(pattern=r"^[a-z0-9_*]{1,60}$"),
    Allowed("small letters, digits, underscores and * for any text, such as agency_*"),
]
State = Literal["requested", "approved", "live", "leaving"]


class StateDays(Part):
    """When an organisation reached each state."""

    requested: Day | None = None
    """Day it asked for a place."""
    approved: Day | None = None
    """Day somebody said yes."""
    live: Day | None = None
    """Day of its first post."""
    leaving: Day | None = None
    """Day it said that it will leave."""


class Organisation(Part):
    """A body whose staff may hold accounts; only exactly these mail domains."""

    id: Word
    """Short name of the body, used in reports and invitations."""
    name: Name
    """Official name of the body."""
    names: dict[Locale, Name] = Field(default_factory=dict)
    """The name in other languages: `de: Amt für Beispiele`."""
    domains: tuple[Domain, ...] = Field(min_length=1)
    """Mail domains of its staff. Exactly these: a sub-domain counts only if it is listed."""
    responsible: MailAddress | None = None
    """The person who answers for its accounts."""
    deputy: MailAddress | None = None
    """Who does when that person is away."""
    records_contact: MailAddress | None = None
    """Whom the archive asks."""
    data_protection_contact: MailAddress | None = None
    """Whom people ask about their data."""
    handles: HandlePattern | None = None
    """The form of its accounts' names: `agency_*`. Left out: any name."""
    state: State = "live"
    """`requested`: no domain counts yet. `approved` and `live`: its staff can be invited. `leaving`: its accounts stay,
    new ones are refused."""
    days: StateDays = StateDays()


class OfficialAccount(Part):
    """An account that speaks for an organisation."""

    handle: AccountHandle
    """The name before the @."""
    kind: Literal["organisation", "office", "person", "service", "system"]
    """Whom it stands for. An `office` carries the function, not the surname; a `service` posts by itself."""
    organisation: Word
    """Id of the organisation."""
    owner: MailAddress
    """The person responsible for what it says."""
    deputy: MailAddress | None = None
    """The person who is when the owner is away."""
    mailbox: MailAddress | None = None
    """The functional mailbox the account is registered with. Without it: the owner's address."""
    purpose: str = Field(default="", max_length=500)
    """What it is for, in a sentence."""
    automated: Flag = False
    """Whether programs post here. Then it needs a mailbox, where people get an answer."""
    tools: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = ()
    """Names of the applications that may hold a token for it."""
    role: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Name of the role it has in Mastodon, where none came with its invitation. The sweep reports any other."""

    @property
    def address(self) -> str:
        """The mail address of the account in Mastodon."""
        return self.mailbox or self.owner

    @property
    def people(self) -> tuple[str, ...]:
        """Addresses of those who can post as it."""
        return tuple(each for each in (self.owner, self.deputy) if each)
