"""What a service is told: the keys of `service.yaml` in the folder of definitions; every one has a default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from shared_libs.atomic.errors import MisuseError
from shared_libs.factory.draft import Draft
from shared_libs.factory.environment import Environment
from shared_libs.factory.ports import OUTSIDE
from shared_libs.factory.source import read_source
from shared_libs.factory.spec import Count, Duration, Seconds, Section, Text
from shared_libs.factory.subagent import Origin
from shared_libs.factory.wording import note_errors
from shared_libs.observability.runs.reader import OFF, default_url

FILE_NAME = "service.yaml"
KEYS_NAME = "keys.yaml"
"""Where `factory keys` keeps hashes when nobody says."""


class TeamLimits(Section):
    """What the keys of a team may use together; null does not bind."""

    requests_per_minute: Count | None = None
    """Requests a minute."""
    tokens_per_minute: Count | None = None
    """Tokens a minute, those of the answers among them."""
    budget_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """US dollars a window."""
    budget_window: Literal["day", "month", "total"] = "month"
    """When the budget begins anew, by the calendar (UTC)."""


class OidcSettings(Section):
    """Tokens of an identity provider that open this service, beside keys."""

    issuer: Text
    """The provider's address, as the tokens' claim `iss` has it."""
    audience: Text
    """Whom the tokens are for: their claim `aud`."""
    jwks: Text | None = None
    """Where the provider's keys are; null: as its `.well-known/openid-configuration` says."""
    team_claim: Text = "team"
    """The claim that names the team."""
    scopes_claim: Text = "scope"
    """The claim that has the scopes: words with spaces between them, or a list."""
    scopes_prefix: str = ""
    """What stands before the scopes that are ours, as in `factory:agents:run:*`; others are left out."""


class Settings(Section):
    """How a service runs."""

    configs: Path = Path("configs")
    """The folder of definitions; not a key of the file, which lies in it."""
    store: Annotated[Text | None, Field(repr=False)] = None
    """Where runs are kept: sqlite:///file.db or postgresql://…; null: where the command line keeps its own."""
    contents: bool = True
    """Whether the words of users, models and tools are kept with the runs."""
    retention_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 30.0
    """How long runs are kept, in days; null: for ever."""
    collections: Annotated[Text | None, Field(repr=False)] = None
    """Where collections are kept that no definition describes; null: sqlite:///collections.db."""
    keys: Annotated[Text | None, Field(repr=False)] = None
    """
    Where keys are kept: a file of hashes, or the URL of a database. Without it `keys.yaml`, if it lies in the folder;
    else anyone may ask, from loopback alone.
    """
    pepper: Annotated[str, Field(repr=False)] = ""
    """A secret that keys are hashed with, best as "${VARIABLE}"; another one makes every key invalid."""
    oidc: OidcSettings | None = None
    """An identity provider whose tokens open the service too."""
    teams: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")], TeamLimits], Field(default_factory=dict)
    ]
    """What teams may use together, beside the limits of their keys."""
    slots: Count = 100
    """How many requests one agent or chain serves at the same time, at the most; more wait, or are refused."""
    max_body: Count = 10 * 1024 * 1024
    """Bytes of a body."""
    body_timeout_s: Seconds = 10.0
    """Seconds a body may take to come."""
    header_timeout_s: Seconds = 10.0
    """Seconds the headers of a request may take to come."""
    max_timeout_s: Seconds = 600.0
    """The longest a run may take, in seconds, whatever its client or its definition says."""
    orphan_grace_s: Duration = 30.0
    """Seconds a run goes on when its client has gone and nobody else follows it."""
    drain_notice_s: Duration = 5.0
    """Seconds from the signal to stop until no more connections are taken: so that balancers notice."""
    drain_s: Seconds = 30.0
    """Seconds in which what is under way may end, the notice included."""
    reload_s: Seconds = 2.0
    """How often the folder of definitions is looked at, in seconds."""

    @property
    def notice_s(self) -> float:
        """Seconds of the notice: half of the time to end in at the most, so that this holds."""
        return min(self.drain_notice_s, self.drain_s / 2)

    @property
    def is_open(self) -> bool:
        """Whether anyone may ask."""
        return self.keys is None and self.oidc is None

    @property
    def runs_url(self) -> str:
        """
        Where runs are kept.

        Raises:
            MisuseError: they are said to be kept nowhere.

        """
        url = default_url() if self.store is None else self.store
        if url == OFF:
            told = "FACTORY_RUNS" if self.store is None else "`store`"
            raise MisuseError(
                f"a service keeps its runs, so that they are found again, and {told} is {OFF}: name a place with "
                "`store:` in service.yaml or --store URL; `contents: false` keeps no words in it"
            )
        return url

    @property
    def shared_url(self) -> str:
        """
        Where servers keep what they share: with the keys if these are in a database, else with the runs.

        Raises:
            MisuseError: there is no such place.

        """
        return self.keys if self.keys is not None and "://" in self.keys else self.runs_url


def load_settings(configs: Path) -> Settings:
    """
    Read `service.yaml` of a folder; without one all is at its default.

    Raises:
        ConfigError: it does not hold; every problem has its place.

    """
    path = configs / FILE_NAME
    at_hand: dict[str, Any] = {"keys": KEYS_NAME} if (configs / KEYS_NAME).is_file() else {}
    if not os.path.lexists(path):
        return Settings(configs=configs, **at_hand)
    written, problems = read_source(path)
    if written is None:
        written = {}
    environment = Environment(problems)
    data = environment.expanded(written)
    draft = Draft(written, data, problems, environment, Origin(path, (), lambda *_: (None, "")), OUTSIDE)
    if not isinstance(data, dict) or "configs" in data:
        problems.add(("configs",) if isinstance(data, dict) else (), "allowed are the keys of a service's settings")
        problems.raise_if_any()
    settings = None
    try:
        settings = Settings.model_validate(at_hand | data | {"configs": configs})
    except ValidationError as error:
        note_errors(draft, error, Settings, data)
    problems.raise_if_any()
    assert settings is not None, "a validation error without a problem"
    return settings
