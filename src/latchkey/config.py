"""Settings: what the environment says, read once, every fault reported together."""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo, fields

PREFIX = "LATCHKEY_"
_UNPREFIXED = ("openai_api_key", "openai_base_url", "anthropic_api_key", "anthropic_base_url")
_MIN_SECRET_BYTES = 32

NO_IDENTITY = (
    "No identity, no start: set LATCHKEY_AUTH_JWKS_URL, LATCHKEY_AUTH_ISSUER and LATCHKEY_AUTH_AUDIENCE"
    " for an identity provider, or LATCHKEY_AUTH_SECRET for a shared secret, or start with --dev"
)


class ConfigurationError(Exception):
    """The environment does not configure the service. Says per variable what would be right, and shows no value."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(("Latchkey is not configured:", *(f"  {fault}" for fault in faults))))
        self.faults = faults


class Secret(str):
    """A text that does not show itself in a `repr`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


class DatabaseUrl(str):
    """Where the database is. Its `repr` shows the scheme alone: a password may be anywhere after that."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not text.startswith(("sqlite+aiosqlite://", "postgres://", "postgresql://", "postgresql+asyncpg://")):
            raise ValueError(text.partition("://")[0])
        return super().__new__(cls, text)

    def __repr__(self) -> str:
        return f"'{self.partition('://')[0]}://…'"


# A description says what would be right; it is the text of the fault when a value is not.
_LOOPBACK = r"http://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?"
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:\d{1,5})?"

Url = Annotated[str, Meta(pattern=r"^https?://[^\s/@?#]+[^\s@?#]*$", description="an http or https URL without a user")]
KeysUrl = Annotated[
    str,
    Meta(
        pattern=rf"^(https://[^\s/@?#]+|{_LOOPBACK})(/[^\s#]*)?$",
        description="an https URL, or an http one on loopback",
    ),
]
Hosts = Annotated[
    tuple[Annotated[str, Meta(pattern=rf"^{_HOST}$")], ...],
    Meta(description="a comma list of hosts, each with or without a port: `api.example.com,localhost:8000`"),
]
Origins = Annotated[
    tuple[Annotated[str, Meta(pattern=rf"^https?://{_HOST}$")], ...],
    Meta(description="a comma list of origins, with a scheme and without a path: `https://app.example.com`"),
]
AgentName = Annotated[
    Literal["openai", "claude", "rehearsal"], Meta(description="one of `openai`, `claude`, `rehearsal`")
]
OpenAIApi = Annotated[
    Literal["responses", "chat_completions"], Meta(description="one of `responses`, `chat_completions`")
]
Database = Annotated[
    DatabaseUrl, Meta(description="a URL that begins with `postgresql://`, `postgres://` or `sqlite+aiosqlite://`")
]
Seconds = Annotated[float, Meta(ge=0.1, le=86_400, description="a number of seconds from 0.1 to 86400")]
Patience = Annotated[float, Meta(ge=0, le=3_600, description="a number of seconds from 0 to 3600")]
Count = Annotated[int, Meta(ge=1, le=1_000, description="a whole number from 1 to 1000")]
Rate = Annotated[int, Meta(ge=1, le=10_000_000, description="a whole number from 1 to 10000000")]
Bytes = Annotated[int, Meta(ge=1, le=1 << 50, description="a whole number of bytes, at least 1")]
Characters = Annotated[int, Meta(ge=1, le=10_000_000, description="a whole number from 1 to 10000000")]
TextFile = Annotated[Path, Meta(description="the path of a readable text file in UTF-8 that is not blank")]


def _variable(field: str) -> str:
    """The variable that a field is read from."""
    return field.upper() if field in _UNPREFIXED else PREFIX + field.upper()


class Settings(Struct, frozen=True, kw_only=True, rename=_variable):
    """What the service is told from outside. Each field is the variable of that name; None means it is not set."""

    database_url: Database = DatabaseUrl("sqlite+aiosqlite:///var/latchkey.db")
    auth_jwks_url: KeysUrl | None = None
    auth_issuer: str | None = None
    auth_audience: str | None = None
    auth_secret: Secret | None = None
    agent: AgentName | None = None
    file_agent: AgentName | None = None
    model: str | None = None
    openai_api: OpenAIApi = "responses"
    openai_api_key: Secret | None = None
    openai_base_url: Url | None = None
    claude_cli: str | None = None
    claude_model: str = "sonnet"
    anthropic_api_key: Secret | None = None
    anthropic_base_url: Url | None = None
    claude_processes: Count | None = None
    public_url: Url | None = None
    allowed_hosts: Hosts = ()
    allowed_origins: Origins = ()
    turn_deadline_s: Seconds = 300
    turn_max_steps: Count = 12
    turn_lease_s: Seconds = 20
    turn_max_calls: Count = 100
    turns_per_user: Count = 4
    requests_per_minute: Rate = 6_000
    bytes_per_user: Bytes = 1 << 30
    drain_s: Patience = 30
    history_turns: Count = 40
    history_chars: Characters = 120_000
    instructions: TextFile | None = None
    context_token: Secret | None = None
    dev: bool = False

    @classmethod
    def read(cls, environ: Mapping[str, str], *, dev: bool = False) -> Self:
        """The settings that the environment gives; a blank value is one that is not set.

        Raises `ConfigurationError` with every fault: values that break a rule, settings that contradict
        one another and, unless `dev`, `LATCHKEY_` names that do not exist.
        """
        given = {name: text.strip() for name, text in environ.items() if text.strip()}
        faults = [] if dev else [_unknown(name) for name in given if name.startswith(PREFIX) and name not in VARIABLES]
        values: dict[str, object] = {"dev": dev}
        for name in VARIABLES.keys() & given.keys():
            try:
                values[VARIABLES[name].name] = _value(given[name], VARIABLES[name].type)
            except msgspec.ValidationError:
                faults.append(f"{name}: must be {_rule(VARIABLES[name].type)}")
        settings = cls(**values)  # type: ignore[arg-type]  # each value was converted to its field's type
        faults += settings._contradictions()
        if faults:
            raise ConfigurationError(*sorted(faults))
        return settings

    @property
    def identity(self) -> Literal["jwks", "secret", "dev"] | None:
        """What vouches for users: a provider's keys, the shared secret, or the key of `--dev`."""
        if self.auth_jwks_url is not None:
            return "jwks"
        if self.auth_secret is not None:
            return "secret"
        return "dev" if self.dev else None

    def require_identity(self) -> None:
        """Raises `ConfigurationError` if nothing vouches for users: such a service must not start."""
        if self.identity is None:
            raise ConfigurationError(NO_IDENTITY)

    @property
    def issuer(self) -> str:
        return self.auth_issuer or "latchkey"

    @property
    def audience(self) -> str:
        return self.auth_audience or "latchkey"

    @property
    def auth_key(self) -> bytes:
        """The shared secret as the bytes that the environment held."""
        return os.fsencode(self.auth_secret or "")

    @property
    def agent_name(self) -> AgentName | None:
        """The agent for chat turns; None if there is none, and `/chat` says so."""
        if self.agent == "openai" or (self.agent is None and self.openai_api_key):
            return "openai" if self.openai_api_key or self.openai_base_url else None
        return self.agent or ("rehearsal" if self.dev else None)

    def file_agent_name(self, *, has_claude: bool) -> AgentName | None:
        """The agent for turns that make a file; `has_claude` is whether a Claude CLI was found."""
        if self.file_agent is not None:
            return self.file_agent
        return "claude" if has_claude and self.anthropic_api_key else self.agent_name

    def reached_at(self, host: str, port: int) -> str:
        """How clients reach the service that listens there, without a slash at the end."""
        return (self.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}").rstrip("/")

    def system_prompt(self) -> str | None:
        """The text that replaces the built-in system prompt, if there is one."""
        return self.instructions.read_text("utf-8") if self.instructions else None

    def _contradictions(self) -> Iterator[str]:
        """What is wrong although every value on its own is right."""
        if self.auth_jwks_url and self.auth_secret:
            yield "LATCHKEY_AUTH_SECRET: must not be set beside LATCHKEY_AUTH_JWKS_URL; keep one of the two"
        if self.auth_jwks_url and not self.auth_issuer:
            yield "LATCHKEY_AUTH_ISSUER: must be set with LATCHKEY_AUTH_JWKS_URL: the `iss` of the provider's tokens"
        if self.auth_jwks_url and not self.auth_audience:
            yield "LATCHKEY_AUTH_AUDIENCE: must be set with LATCHKEY_AUTH_JWKS_URL: the `aud` of its tokens for us"
        if self.auth_secret and len(self.auth_key) < _MIN_SECRET_BYTES:
            yield f"LATCHKEY_AUTH_SECRET: must be at least {_MIN_SECRET_BYTES} bytes; try `openssl rand -hex 32`"
        if self.file_agent == "rehearsal" and not self.dev and self.agent != "rehearsal":
            yield "LATCHKEY_FILE_AGENT: must not be `rehearsal` unless LATCHKEY_AGENT is too, or the start is --dev"
        if self.instructions and not _is_text(self.instructions):
            yield f"LATCHKEY_INSTRUCTIONS: must be {_rule(TextFile)}"


VARIABLES: dict[str, FieldInfo] = {field.encode_name: field for field in fields(Settings) if field.name != "dev"}
"""Every variable that is read, by its name."""


def _unknown(name: str) -> str:
    near = get_close_matches(name, VARIABLES, 1)
    return f"{name}: there is no such setting" + (f"; did you mean {near[0]}?" if near else "")


def _value(text: str, kind: object) -> object:
    """The text as a field's type wants it. Raises `msgspec.ValidationError` if it breaks the type's rule."""
    raw = [item for item in map(str.strip, text.split(",")) if item] if kind in {Hosts, Origins} else text
    return msgspec.convert(raw, kind, strict=False, dec_hook=lambda made, given: made(given))


def _rule(kind: object) -> str:
    """What would be right, as the type describes it."""
    metas = [meta for part in (kind, *get_args(kind)) for meta in getattr(part, "__metadata__", ())]
    return next((meta.description for meta in metas if meta.description), "a text")


def _is_text(path: Path) -> bool:
    try:
        return bool(path.read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False
