"""Reading settings from environment variables, and the faults of invalid ones."""

from pathlib import Path
from typing import Any

import pytest

from latchkey.config import VARIABLES, ConfigurationError, Settings

SECRET = "0123456789abcdef0123456789abcdef"
JWKS = {
    "LATCHKEY_AUTH_JWKS_URL": "https://auth.example/api/auth/jwks",
    "LATCHKEY_AUTH_ISSUER": "https://auth.example",
    "LATCHKEY_AUTH_AUDIENCE": "https://api.example",
}


def _faults(environ: dict[str, str], *, dev: bool = False) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        Settings.read(environ, dev=dev)
    assert all(fault in str(raised.value) for fault in raised.value.faults)
    return list(raised.value.faults)


def test_settings_of_empty_environment_are_the_documented_defaults() -> None:
    settings = Settings.read({"PATH": "/bin", "LATCHKEY_MODEL": "  "})
    assert settings == Settings()
    assert settings.database_url == "sqlite+aiosqlite:///var/latchkey.db"
    assert (settings.turn_deadline_s, settings.turn_max_steps, settings.turn_lease_s) == (300, 12, 20)
    assert (settings.turns_per_user, settings.drain_s) == (4, 30)
    assert (settings.turn_max_calls, settings.requests_per_minute, settings.bytes_per_user) == (100, 6_000, 2**30)
    assert (settings.history_turns, settings.history_chars) == (40, 120_000)
    assert (settings.openai_api, settings.claude_model, settings.model) == ("responses", "sonnet", None)


def test_settings_names_are_the_documented_ones() -> None:
    documented = """DATABASE_URL AUTH_JWKS_URL AUTH_ISSUER AUTH_AUDIENCE AUTH_SECRET AGENT MODEL OPENAI_API
        FILE_AGENT CLAUDE_CLI CLAUDE_MODEL CLAUDE_PROCESSES PUBLIC_URL ALLOWED_HOSTS ALLOWED_ORIGINS
        TURN_DEADLINE_S TURN_MAX_STEPS TURN_MAX_CALLS TURN_LEASE_S TURN_ATTEMPTS TURNS_PER_USER REQUESTS_PER_MINUTE
        BYTES_PER_USER DRAIN_S HISTORY_TURNS HISTORY_CHARS INSTRUCTIONS ASSISTANTS CONTEXT_TOKEN APP CONSOLE
        APPROVAL_TTL_S"""
    others = {"OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"}
    assert VARIABLES.keys() == {f"LATCHKEY_{name}" for name in documented.split()} | others


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("LATCHKEY_DATABASE_URL", "postgres://u:p@h/db", "postgres://u:p@h/db"),
        ("LATCHKEY_DATABASE_URL", "sqlite:///notes.db", "sqlite:///notes.db"),
        ("LATCHKEY_AUTH_SECRET", SECRET, SECRET),
        ("LATCHKEY_AGENT", "rehearsal", "rehearsal"),
        ("LATCHKEY_MODEL", "null", "null"),
        ("LATCHKEY_CONSOLE", "true", True),
        ("LATCHKEY_CONSOLE", "false", False),
        ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1"),
        ("LATCHKEY_OPENAI_API", "chat_completions", "chat_completions"),
        ("LATCHKEY_PUBLIC_URL", "https://api.example/base", "https://api.example/base"),
        ("LATCHKEY_ALLOWED_HOSTS", "a.example, [::1]:80 ,", ("a.example", "[::1]:80")),
        ("LATCHKEY_ALLOWED_ORIGINS", "https://a.example,http://b:3000", ("https://a.example", "http://b:3000")),
        ("LATCHKEY_TURN_DEADLINE_S", "0.5", 0.5),
        ("LATCHKEY_TURN_MAX_STEPS", "1", 1),
        ("LATCHKEY_DRAIN_S", "0", 0),
        ("LATCHKEY_CLAUDE_PROCESSES", "3", 3),
    ],
)
def test_settings_valid_value_is_read(name: str, text: str, value: Any) -> None:
    assert getattr(Settings.read({name: text}), VARIABLES[name].name) == value


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("LATCHKEY_DATABASE_URL", "mysql://h/db", "postgresql://"),
        ("LATCHKEY_AUTH_SECRET", SECRET[:31], "at least 32 bytes"),
        ("LATCHKEY_AGENT", "gpt", "`rehearsal`"),
        ("LATCHKEY_OPENAI_API", "completions", "`chat_completions`"),
        ("OPENAI_BASE_URL", "api.openai.com", "http or https"),
        ("OPENAI_API_KEY", "sk-é", "printable ASCII"),
        ("OPENAI_API_KEY", "sk-abc\nOPENAI_BASE_URL=x", "printable ASCII"),
        ("ANTHROPIC_API_KEY", "sk-ant my key", "without spaces"),
        ("LATCHKEY_PUBLIC_URL", "https://u:p@api.example", "without a user name"),
        ("LATCHKEY_ALLOWED_HOSTS", "a.example,*", "comma-separated list of hosts"),
        ("LATCHKEY_ALLOWED_HOSTS", "http://a.example", "comma-separated list of hosts"),
        ("LATCHKEY_ALLOWED_ORIGINS", "a.example", "with a scheme"),
        ("LATCHKEY_TURN_DEADLINE_S", "nan", "from 0.1 to 86400"),
        ("LATCHKEY_TURN_LEASE_S", "0", "from 0.1"),
        ("LATCHKEY_TURN_MAX_STEPS", "2.5", "a whole number from 1 to 1000"),
        ("LATCHKEY_HISTORY_CHARS", "-1", "a whole number"),
        ("LATCHKEY_INSTRUCTIONS", "/does/not/exist", "readable UTF-8 text file"),
        ("LATCHKEY_FILE_AGENT", "rehearsal", "--dev"),
        ("LATCHKEY_CLAUDE_PROCESSES", "0", "a whole number from 1"),
        ("LATCHKEY_CONSOLE", "yes", "`true` or `false`"),
    ],
)
def test_settings_invalid_value_is_refused_with_a_hint(name: str, text: str, hint: str) -> None:
    [fault] = _faults({name: text})
    assert fault.startswith(f"{name}: must ")
    assert hint in fault


@pytest.mark.parametrize(
    "url",
    [
        "http://auth.example/jwks",
        "http://127.0.0.1.evil.example/jwks",
        "http://localhost@evil.example/jwks",
        "http://localhost.evil.example/jwks",
        "https://user:pass@auth.example/jwks",
        "ftp://localhost/jwks",
    ],
)
def test_jwks_url_without_tls_is_refused(url: str) -> None:
    [fault] = _faults({**JWKS, "LATCHKEY_AUTH_JWKS_URL": url})
    assert "https" in fault


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "127.1.2.3", "[::1]:1"])
def test_jwks_url_on_loopback_may_be_plain_http(host: str) -> None:
    settings = Settings.read({**JWKS, "LATCHKEY_AUTH_JWKS_URL": f"http://{host}/jwks"})
    assert settings.auth_jwks_url == f"http://{host}/jwks"


def test_settings_faults_are_reported_together_and_without_values() -> None:
    environ = {
        "LATCHKEY_DATABASE_URL": "mysql://root:hunter2@h/db",
        "LATCHKEY_AUTH_SECRET": "hunter2",
        "LATCHKEY_AGENT": "sk-hunter2",
        "LATCHKEY_TURN_DEADLINE": "hunter2",
    }
    faults = _faults(environ)
    assert [fault.partition(":")[0] for fault in faults] == sorted(environ)
    assert "hunter2" not in "".join(faults)


def test_settings_unknown_name_is_refused_with_a_similar_one_unless_dev() -> None:
    environ = {"LATCHKEY_TURN_DEADLINE": "3", "LATCHKEYS": "not ours"}
    assert _faults(environ) == [
        "LATCHKEY_TURN_DEADLINE: there is no such setting; did you mean LATCHKEY_TURN_DEADLINE_S?"
    ]
    assert Settings.read(environ, dev=True) == Settings(dev=True)


@pytest.mark.parametrize("name", ["latchkey_agent", "export LATCHKEY_AGENT", " LATCHKEY_AGENT"])
def test_settings_name_as_some_env_files_write_it_is_refused_with_the_right_one(name: str) -> None:
    """Otherwise the setting would be ignored."""
    assert _faults({name: "openai"}) == [f"{name}: there is no such setting; did you mean LATCHKEY_AGENT?"]


KUBERNETES = """
LATCHKEY_SERVICE_HOST=10.96.0.17
LATCHKEY_SERVICE_PORT=8000
LATCHKEY_SERVICE_PORT_HTTP_WEB=8000
LATCHKEY_PORT=tcp://10.96.0.17:8000
LATCHKEY_PORT_8000_TCP=tcp://10.96.0.17:8000
LATCHKEY_PORT_8000_TCP_PROTO=tcp
LATCHKEY_PORT_8000_TCP_PORT=8000
LATCHKEY_PORT_8000_TCP_ADDR=10.96.0.17
LATCHKEY_MODEL_SERVICE_HOST=fd00:10:96::1
LATCHKEY_MODEL_PORT=tcp://[fd00:10:96::1]:53
LATCHKEY_MODEL_PORT_53_UDP=udp://[fd00:10:96::1]:53
LATCHKEY_MODEL_PORT_53_UDP_PROTO=udp
LATCHKEY_MODEL_PORT_53_UDP_ADDR=fd00:10:96::1
LATCHKEY_PORT_5000_SCTP_PROTO=sctp
"""
"""What Kubernetes sets in every pod for the Services `latchkey` and `latchkey-model`, with IPv4 and IPv6."""


def test_settings_ignore_variables_that_kubernetes_sets_for_a_service() -> None:
    environ = dict(line.split("=") for line in KUBERNETES.split())
    assert Settings.read(environ) == Settings()
    assert not environ.keys() & VARIABLES.keys()


@pytest.mark.parametrize(
    "variable",
    [
        "LATCHKEY_PORT=8000",
        "LATCHKEY_PORT=tcp://latchkey:8000",
        "LATCHKEY_SERVICE_PORT=http",
        "LATCHKEY_SERVICE_HOST=latchkey.example",
        "LATCHKEY_PORT_8000_TCP_PROTO=http",
        "LATCHKEY_SERVICE_NAME=latchkey",
        "LATCHKEY_PORTS=tcp://10.96.0.17:8000",
    ],
)
def test_settings_unknown_name_with_another_value_than_kubernetes_sets_is_refused(variable: str) -> None:
    name, _, text = variable.partition("=")
    [fault] = _faults({name: text})
    assert fault.startswith(f"{name}: there is no such setting")


def test_settings_dev_is_not_an_environment_variable() -> None:
    assert "LATCHKEY_DEV: there is no such setting" in _faults({"LATCHKEY_DEV": "true"})[0]
    assert not VARIABLES.keys() & {"LATCHKEY_DEV", "DEV"}


def test_settings_repr_redaction_hides_secrets() -> None:
    names = ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LATCHKEY_AUTH_SECRET", "LATCHKEY_CONTEXT_TOKEN"]
    environ = dict.fromkeys(names, SECRET) | {"LATCHKEY_DATABASE_URL": f"postgres://u:{SECRET}@h/d"}
    settings = Settings.read(environ)
    assert SECRET not in f"{settings} {settings!r} {settings.__rich_repr__()!r} {list(settings.__rich_repr__())}"
    assert settings.auth_key == SECRET.encode()


def test_settings_without_identity_cannot_serve_except_in_dev() -> None:
    """Reading the settings succeeds, so that `migrate` works."""
    with pytest.raises(
        ConfigurationError, match=r"Authentication is not configured.*LATCHKEY_AUTH_JWKS_URL.*LATCHKEY_AUTH_SECRET"
    ):
        Settings.read({}).require_identity()
    dev, shared = Settings.read({}, dev=True), Settings.read({"LATCHKEY_AUTH_SECRET": SECRET})
    provider = Settings.read(JWKS)
    for settings in (dev, shared, provider):
        settings.require_identity()
    assert (dev.identity, shared.identity, provider.identity) == ("dev", "secret", "jwks")
    assert (shared.issuer, shared.audience) == ("latchkey", "latchkey")
    assert (provider.issuer, provider.audience) == ("https://auth.example", "https://api.example")


def test_settings_identity_must_be_complete_and_only_one() -> None:
    assert [f.partition(":")[0] for f in _faults({"LATCHKEY_AUTH_JWKS_URL": JWKS["LATCHKEY_AUTH_JWKS_URL"]})] == [
        "LATCHKEY_AUTH_AUDIENCE",
        "LATCHKEY_AUTH_ISSUER",
    ]
    assert "keep one" in _faults({**JWKS, "LATCHKEY_AUTH_SECRET": SECRET})[0]


def test_settings_secret_length_is_measured_in_bytes() -> None:
    assert len(Settings.read({"LATCHKEY_AUTH_SECRET": "é" * 16}).auth_key) == 32


@pytest.mark.parametrize(
    ("environ", "dev", "agent"),
    [
        ({}, False, None),
        ({}, True, "rehearsal"),
        ({"OPENAI_API_KEY": "k"}, False, "openai"),
        ({"OPENAI_API_KEY": "k"}, True, "openai"),
        ({"LATCHKEY_AGENT": "openai"}, True, None),
        ({"LATCHKEY_AGENT": "openai", "OPENAI_BASE_URL": "http://localhost:1/v1"}, False, "openai"),
        ({"LATCHKEY_AGENT": "rehearsal", "OPENAI_API_KEY": "k"}, False, "rehearsal"),
        ({"LATCHKEY_AGENT": "claude"}, False, "claude"),
    ],
)
def test_settings_agent_name_is_the_configured_or_default_agent(
    environ: dict[str, str], agent: str | None, *, dev: bool
) -> None:
    assert Settings.read(environ, dev=dev).agent_name == agent


def test_settings_file_agent_is_claude_if_it_can_run() -> None:
    settings = Settings.read({"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"})
    assert settings.file_agent_name(has_claude=True) == "claude"
    assert settings.file_agent_name(has_claude=False) == "openai"
    assert Settings.read({"OPENAI_API_KEY": "k"}).file_agent_name(has_claude=True) == "openai"
    assert Settings.read({"LATCHKEY_FILE_AGENT": "openai"}).file_agent_name(has_claude=True) == "openai"


def test_settings_public_url_defaults_to_the_listen_address() -> None:
    assert Settings().reached_at("127.0.0.1", 8000) == "http://127.0.0.1:8000"
    assert Settings().reached_at("::1", 8000) == "http://[::1]:8000"
    assert Settings.read({"LATCHKEY_PUBLIC_URL": "https://a.example/"}).reached_at("::1", 1) == "https://a.example"


def test_settings_instructions_must_be_a_file_with_text(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("Be kind, Zoë.", "utf-8")
    assert Settings.read({"LATCHKEY_INSTRUCTIONS": str(path)}).system_prompt() == "Be kind, Zoë."
    assert Settings().system_prompt() is None
    for bad in (b"\xff\xfe", b"  \n"):
        path.write_bytes(bad)
        assert "readable UTF-8 text file" in _faults({"LATCHKEY_INSTRUCTIONS": str(path)})[0]
