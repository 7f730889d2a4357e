"""User authentication as the settings configure it: an identity provider, a shared secret, or the development key."""

from pathlib import Path

from latchkey.config import ConfigurationError, Settings
from latchkey.infrastructure.identity.jwks import JwksIdentity
from latchkey.infrastructure.identity.shared_secret import SharedSecret, load_signing_key

DEV_KEY = Path("var/signing.key")


def create_identity(settings: Settings) -> SharedSecret | JwksIdentity:
    """Create the identity adapter. Raises `ConfigurationError` if authentication is not configured."""
    settings.require_identity()
    if settings.auth_jwks_url is not None:
        return JwksIdentity(settings.auth_jwks_url, settings.issuer, settings.audience)
    return create_signer(settings)


def create_signer(settings: Settings) -> SharedSecret:
    """Create the adapter that also signs tokens. Raises `ConfigurationError` if an identity provider signs them."""
    if settings.identity == "jwks":
        raise ConfigurationError("LATCHKEY_AUTH_JWKS_URL: the identity provider signs the tokens, not this service")
    secret = settings.auth_key if settings.identity == "secret" else load_signing_key(DEV_KEY)
    return SharedSecret(secret, settings.issuer, settings.audience)
