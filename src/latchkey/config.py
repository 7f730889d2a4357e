"""Settings: read once from environment variables; all faults are reported together."""

import os
import re
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

_DATABASE_SCHEMES = ("sqlite://", "sqlite+aiosqlite://", "postgres://", "postgresql://", "postgresql+asyncpg://")

_IP = r"[0-9A-Fa-f:.]+"
_PROTOCOL = "tcp|udp|sctp"
_OF_A_SERVICE = re.compile(
    rf"""LATCHKEY_(?:[A-Z0-9_]+_)?(?:
    SERVICE_HOST={_IP}
    | SERVICE_PORT(?:_[A-Z0-9_]+)?=[0-9]+
    | PORT(?:_[0-9]+_(?:TCP|UDP|SCTP))?=(?:{_PROTOCOL})://(?:{_IP}|\[{_IP}\]):[0-9]+
    | PORT_[0-9]+_(?:TCP|UDP|SCTP)_(?:ADDR={_IP}|PORT=[0-9]+|PROTO=(?:{_PROTOCOL}))
    )""",
    re.VERBOSE,
)
"""`NAME=VALUE` of the variables that Kubernetes sets in every pod for a Service called `latchkey` or `latchkey-…`.

No setting may have a name of this shape.
"""

NO_IDENTITY = (
    "Authentication is not configured: set LATCHKEY_AUTH_JWKS_URL, LATCHKEY_AUTH_ISSUER and LATCHKEY_AUTH_AUDIENCE"
    " for an identity provider, or LATCHKEY_AUTH_SECRET for a shared secret, or start with --dev"
)


class ConfigurationError(Exception):
    """Invalid settings. The text says for each variable what would be valid, and contains no value."""

    title = "Latchkey is not configured:"

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join((self.title, *(f"  {fault}" for fault in faults))))
        self.faults = faults


class Secret(str):
    """A string whose `repr` does not show its content."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


class ApiKey(Secret):
    """The key of a model's server, which is sent in a header."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not (text.isascii() and text.isprintable() and " " not in text):
            raise ValueError("…")
        return super().__new__(cls, text)


class DatabaseUrl(str):
    """The URL of the database. Its `repr` shows the scheme only, because the rest can contain a password."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not text.startswith(_DATABASE_SCHEMES):
            raise ValueError(text.partition("://")[0])
        return super().__new__(cls, text)

    def __repr__(self) -> str:
        return f"'{self.partition('://')[0]}://…'"


# The description says what is valid; it is the error text for an invalid value.
_LOOPBACK = r"http://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?"
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:\d{1,5})?"

Url = Annotated[
    str, Meta(pattern=r"^https?://[^\s/@?#]+[^\s@?#]*$", description="an http or https URL without a user name")
]
JwksUrl = Annotated[
    str,
    Meta(
        pattern=rf"^(https://[^\s/@?#]+|{_LOOPBACK})(/[^\s#]*)?$",
        description="an https URL, or an http URL on loopback",
    ),
]
Hosts = Annotated[
    tuple[Annotated[str, Meta(pattern=rf"^{_HOST}$")], ...],
    Meta(description="a comma-separated list of hosts, with or without a port: `api.example.com,localhost:8000`"),
]
Origins = Annotated[
    tuple[Annotated[str, Meta(pattern=rf"^https?://{_HOST}$")], ...],
    Meta(description="a comma-separated list of origins with a scheme and no path: `https://app.example.com`"),
]
BUILT_IN_AGENTS = ("openai", "claude", "pydantic_ai", "rehearsal")
AgentName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_]\w*$",
        description="the name of an agent: "
        + ", ".join(f"`{name}`" for name in BUILT_IN_AGENTS)
        + ", or one that the app registers",
    ),
]
OpenAIApi = Annotated[
    Literal["responses", "chat_completions"], Meta(description="one of `responses`, `chat_completions`")
]
Database = Annotated[
    DatabaseUrl, Meta(description="a URL that begins with `postgresql://`, `postgres://` or `sqlite:///`")
]
Key = Annotated[ApiKey, Meta(description="a key of printable ASCII characters without spaces")]
Seconds = Annotated[float, Meta(ge=0.1, le=86_400, description="a number of seconds from 0.1 to 86400")]
DrainSeconds = Annotated[float, Meta(ge=0, le=3_600, description="a number of seconds from 0 to 3600")]
Count = Annotated[int, Meta(ge=1, le=1_000, description="a whole number from 1 to 1000")]
Rate = Annotated[int, Meta(ge=1, le=10_000_000, description="a whole number from 1 to 10000000")]
Bytes = Annotated[int, Meta(ge=1, le=1 << 50, description="a whole number of bytes, at least 1")]
Characters = Annotated[int, Meta(ge=1, le=10_000_000, description="a whole number from 1 to 10000000")]
AppPath = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="the module and the name of an `App`: `shop.app:app`"),
]
Switch = Annotated[bool, Meta(description="`true` or `false`")]
TextFile = Annotated[Path, Meta(description="the path of a readable UTF-8 text file that is not blank")]


def _variable(field: str) -> str:
    """Return the environment variable of a field."""
    return field.upper() if field in _UNPREFIXED else PREFIX + field.upper()


class Settings(Struct, frozen=True, kw_only=True, rename=_variable):
    """The settings. Each field is read from the environment variable of its name; None means that it is not set."""

    database_url: Database = DatabaseUrl("sqlite+aiosqlite:///var/latchkey.db")
    auth_jwks_url: JwksUrl | None = None
    auth_issuer: str | None = None
    auth_audience: str | None = None
    auth_secret: Secret | None = None
    agent: AgentName | None = None
    file_agent: AgentName | None = None
    model: str | None = None
    openai_api: OpenAIApi = "responses"
    openai_api_key: Key | None = None
    openai_base_url: Url | None = None
    claude_cli: str | None = None
    claude_model: str = "sonnet"
    anthropic_api_key: Key | None = None
    anthropic_base_url: Url | None = None
    claude_processes: Count | None = None
    public_url: Url | None = None
    allowed_hosts: Hosts = ()
    allowed_origins: Origins = ()
    console: Switch = False
    turn_deadline_s: Seconds = 300
    turn_max_steps: Count = 12
    turn_lease_s: Seconds = 20
    turn_max_calls: Count = 100
    turn_attempts: Count = 3
    approval_ttl_s: Seconds = 86_400
    turns_per_user: Count = 4
    requests_per_minute: Rate = 6_000
    bytes_per_user: Bytes = 1 << 30
    drain_s: DrainSeconds = 30
    history_turns: Count = 40
    history_chars: Characters = 120_000
    instructions: TextFile | None = None
    assistants: Annotated[Path, Meta(description="the path of a TOML file of assistants")] | None = None
    context_token: Secret | None = None
    app: AppPath | None = None
    dev: bool = False

    @classmethod
    def read(cls, environ: Mapping[str, str], *, dev: bool = False) -> Self:
        """Read the settings from environment variables. A blank value counts as not set.

        Raises `ConfigurationError` with all faults: invalid values, settings that contradict one another and,
        unless `dev`, unknown `LATCHKEY_` names. Variables that Kubernetes sets for a Service are ignored.
        """
        texts = {name: text.strip() for name, text in environ.items() if text.strip()}
        faults = [] if dev else [_unknown(name) for name, text in texts.items() if _is_unknown(name, text)]
        values: dict[str, object] = {"dev": dev}
        for name in VARIABLES.keys() & texts.keys():
            try:
                values[VARIABLES[name].name] = _value(texts[name], VARIABLES[name].type)
            except msgspec.ValidationError:
                faults.append(f"{name}: must be {_rule(VARIABLES[name].type)}")
        settings = cls(**values)  # type: ignore[arg-type]  # each value has been converted to the type of its field
        faults += settings._contradictions()
        if faults:
            raise ConfigurationError(*sorted(faults))
        return settings

    @property
    def identity(self) -> Literal["jwks", "secret", "dev"] | None:
        """How users are authenticated: keys of an identity provider, a shared secret, or the key of `--dev`."""
        if self.auth_jwks_url is not None:
            return "jwks"
        if self.auth_secret is not None:
            return "secret"
        return "dev" if self.dev else None

    def require_identity(self) -> None:
        """Raises `ConfigurationError` if authentication is not configured: the service must not start."""
        if self.identity is None:
            raise ConfigurationError(NO_IDENTITY)

    @property
    def issuer(self) -> str:
        """The required `iss` of user tokens."""
        return self.auth_issuer or "latchkey"

    @property
    def audience(self) -> str:
        """The required `aud` of user tokens."""
        return self.auth_audience or "latchkey"

    @property
    def auth_key(self) -> bytes:
        """The shared secret as the bytes of the environment variable."""
        return os.fsencode(self.auth_secret or "")

    @property
    def agent_name(self) -> AgentName | None:
        """The agent for chat turns; None if none is configured: then `/chat` responds with 503."""
        if self.agent == "openai" or (self.agent is None and self.openai_api_key):
            return "openai" if self.openai_api_key or self.openai_base_url else None
        return self.agent or ("rehearsal" if self.dev else None)

    def file_agent_name(self, *, has_claude: bool) -> AgentName | None:
        """The agent for turns that create a file; `has_claude` says whether a Claude CLI is installed."""
        if self.file_agent is not None:
            return self.file_agent
        return "claude" if has_claude and self.anthropic_api_key else self.agent_name

    def reached_at(self, host: str, port: int) -> str:
        """Return the base URL by which clients reach a service that listens there, without a trailing slash."""
        return (self.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}").rstrip("/")

    def system_prompt(self) -> str | None:
        """Return the text that replaces the built-in system prompt, or None."""
        return self.instructions.read_text("utf-8") if self.instructions else None

    def _contradictions(self) -> Iterator[str]:
        """Yield the faults between settings that are valid one by one."""
        for name, agent in (("LATCHKEY_AGENT", self.agent), ("LATCHKEY_FILE_AGENT", self.file_agent)):
            if self.app is None and agent not in {None, *BUILT_IN_AGENTS}:
                names = ", ".join(f"`{agent}`" for agent in BUILT_IN_AGENTS)
                yield f"{name}: must be one of {names}, or one that the app in LATCHKEY_APP registers"
        if self.auth_jwks_url and self.auth_secret:
            yield "LATCHKEY_AUTH_SECRET: must not be set together with LATCHKEY_AUTH_JWKS_URL; keep one"
        if self.auth_jwks_url and not self.auth_issuer:
            yield "LATCHKEY_AUTH_ISSUER: must be set with LATCHKEY_AUTH_JWKS_URL: the `iss` of the tokens"
        if self.auth_jwks_url and not self.auth_audience:
            yield "LATCHKEY_AUTH_AUDIENCE: must be set with LATCHKEY_AUTH_JWKS_URL: the `aud` of the tokens"
        if self.auth_secret and len(self.auth_key) < _MIN_SECRET_BYTES:
            yield f"LATCHKEY_AUTH_SECRET: must be at least {_MIN_SECRET_BYTES} bytes: run `openssl rand -hex 32`"
        if self.file_agent == "rehearsal" and not self.dev and self.agent != "rehearsal":
            yield "LATCHKEY_FILE_AGENT: must not be `rehearsal` unless LATCHKEY_AGENT is `rehearsal` too, or with --dev"
        if self.instructions and not _is_text(self.instructions):
            yield f"LATCHKEY_INSTRUCTIONS: must be {_rule(TextFile)}"


VARIABLES: dict[str, FieldInfo] = {field.encode_name: field for field in fields(Settings) if field.name != "dev"}
"""All variables by name."""


def _is_unknown(name: str, text: str) -> bool:
    is_ours = _meant_name(name).startswith(PREFIX)
    return is_ours and name not in VARIABLES and not _OF_A_SERVICE.fullmatch(f"{name}={text}")


def _meant_name(name: str) -> str:
    """The name in capitals, without the `export` that Docker takes from an `.env` file as a part of the name."""
    return name.upper().removeprefix("EXPORT").strip()


def _unknown(name: str) -> str:
    similar = get_close_matches(_meant_name(name), VARIABLES, 1)
    return f"{name}: there is no such setting" + (f"; did you mean {similar[0]}?" if similar else "")


def _value(text: str, kind: object) -> object:
    """Convert the text to the type of a field. Raises `msgspec.ValidationError` for an invalid value."""
    raw = [item for item in map(str.strip, text.split(",")) if item] if kind in {Hosts, Origins} else text
    return msgspec.convert(raw, kind, strict=False, dec_hook=lambda cls, value: cls(value))


def _rule(kind: object) -> str:
    """Return the description of the valid values of a type."""
    metas = [meta for part in (kind, *get_args(kind)) for meta in getattr(part, "__metadata__", ())]
    return next((meta.description for meta in metas if meta.description), "a text")


def _is_text(path: Path) -> bool:
    try:
        return bool(path.read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False
