"""Alert targets: whom the server tells of alerts, and how. Secrets go in and never come out again."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from model.wire.alerts import AlertKind, Severity
from model.wire.base import Answer, Body, Hostname, Name, Utc

AlertEvent = Literal["opened", "resolved", "open"]
TargetKind = Literal["webhook", "mail", "apprise"]
DeliveryState = Literal["waiting", "sent", "failed"]
NAMED_MAX = 1_000  # agents or jobs of one target
_PRINTABLE = r"^[\x21-\x7e]+$"


def _http(value: str) -> str:
    try:
        parts = urlsplit(value)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc
        wrong = wrong or parts.port == 0 or parts.fragment != ""
    except ValueError:
        wrong = True
    if wrong:
        raise ValueError("write https://HOST/PATH, without a user, a password or a fragment")
    return value


WebhookUrl = Annotated[str, StringConstraints(max_length=2_000, pattern=_PRINTABLE), AfterValidator(_http)]
AppriseUrl = Annotated[str, StringConstraints(max_length=2_000, pattern=r"^[a-z0-9]{1,20}://[\x21-\x7e]+$")]
MailAddress = Annotated[
    str, StringConstraints(max_length=254, pattern=r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,189}$")
]
Login = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Webhook(Body):
    """A POST of JSON, signed as standardwebhooks.com says. The URL is not shown again: many hold a secret."""

    url: WebhookUrl


class Mail(Body):
    """Mail by an SMTP server. `security`: ``tls`` from the first byte (port 465), ``starttls``, or ``none``."""

    host: Hostname
    port: Annotated[int, Field(ge=1, le=65_535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: Login | None = None
    password: Login | None = None
    sender: MailAddress
    recipients: Annotated[list[MailAddress], Field(min_length=1, max_length=50)]

    @model_validator(mode="after")
    def _no_password_in_the_open(self) -> Mail:
        if self.password is not None and self.username is None:
            raise ValueError("a password needs a username")
        if self.username is not None and self.security == "none":
            raise ValueError("a login needs security: starttls or tls")
        return self


class Apprise(Body):
    """A URL of apprise, as ``ntfys://ntfy.sh/topic``. It is not shown again: it holds secrets."""

    url: AppriseUrl


class Choice(Body):
    """Which alerts, and when. None of `agent_uuids` and `job_uuids`: those of all."""

    kinds: Annotated[list[AlertKind], Field(min_length=1, max_length=20)] | None = None
    least_severity: Severity = "warning"
    agent_uuids: Annotated[list[UUID], Field(max_length=NAMED_MAX)] = []
    job_uuids: Annotated[list[UUID], Field(max_length=NAMED_MAX)] = []
    resolved: bool = True  # tell of ends too
    remind_hours: Annotated[int, Field(ge=1, le=8_760)] | None = None  # tell again of what is still open
    wait_seconds: Annotated[int, Field(ge=0, le=3_600, description="for more to tell with the first")] = 30
    quiet_seconds: Annotated[int, Field(ge=0, le=86_400, description="between two messages")] = 300


class AlertTargetIn(Choice):
    """POST /api/v1/alert-targets: one of `webhook`, `mail` and `apprise`."""

    name: Name
    enabled: bool = True
    webhook: Webhook | None = None
    mail: Mail | None = None
    apprise: Apprise | None = None

    @model_validator(mode="after")
    def _one_way(self) -> AlertTargetIn:
        if sum(way is not None for way in (self.webhook, self.mail, self.apprise)) != 1:
            raise ValueError("give one of webhook, mail and apprise")
        return self


class AlertTargetChange(Body):
    """PATCH: what is left out stays. A mail password that is left out stays if host, port and login do."""

    name: Name | None = None
    enabled: bool | None = None
    webhook: Webhook | None = None
    mail: Mail | None = None
    apprise: Apprise | None = None
    kinds: Annotated[list[AlertKind], Field(min_length=1, max_length=20)] | None = None
    least_severity: Severity | None = None
    agent_uuids: Annotated[list[UUID], Field(max_length=NAMED_MAX)] | None = None
    job_uuids: Annotated[list[UUID], Field(max_length=NAMED_MAX)] | None = None
    resolved: bool | None = None
    remind_hours: Annotated[int, Field(ge=1, le=8_760)] | None = None
    wait_seconds: Annotated[int, Field(ge=0, le=3_600)] | None = None
    quiet_seconds: Annotated[int, Field(ge=0, le=86_400)] | None = None


class AlertTarget(Answer):
    """A target. `address`: where it goes, without secrets; `waiting`: messages that did not get there yet."""

    uuid: UUID
    name: str
    kind: TargetKind
    address: str
    enabled: bool
    kinds: list[AlertKind] | None = None
    least_severity: Severity
    agent_uuids: list[UUID] = []
    job_uuids: list[UUID] = []
    resolved: bool
    remind_hours: int | None = None
    wait_seconds: int
    quiet_seconds: int
    sent: int
    failed: int
    waiting: int
    last_sent_at: Utc | None = None
    failing_since: Utc | None = None
    error: str | None = None
    created_at: Utc
    updated_at: Utc


class AlertTargetMade(AlertTarget):
    """`secret` signs what a webhook gets; it is shown only now."""

    secret: str | None = None


class SigningSecret(Answer):
    """A new secret, shown only now. Until `old_until` messages carry a signature by the old one too."""

    uuid: UUID
    secret: str
    old_until: Utc


class AlertTest(Answer):
    """What became of a message that was sent to try a target."""

    delivery_uuid: UUID
    sent: bool
    detail: str
    seconds: float


class AlertDelivery(Answer):
    """A message to a target: its UUID stays the same in every attempt. `alerts`: of how many it tells."""

    uuid: UUID
    kind: Literal["alerts", "reminder"]
    state: DeliveryState
    headline: str
    alerts: int
    attempts: int
    detail: str | None = None
    created_at: Utc
    due_at: Utc
    done_at: Utc | None = None
