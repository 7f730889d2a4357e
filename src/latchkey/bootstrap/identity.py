"""Who vouches for users."""

from pathlib import Path

from latchkey.config import ConfigurationError, Settings
from latchkey.infrastructure.identity.jwks import JwksIdentity
from latchkey.infrastructure.identity.shared_secret import SharedSecret
from latchkey.infrastructure.identity.signing_key_file import key_in

DEV_KEY = Path("var/signing.key")


def create_identity(settings: Settings) -> SharedSecret | JwksIdentity:
    """Raises `ConfigurationError` if nobody vouches for users."""
    settings.require_identity()
    if settings.auth_jwks_url is not None:
        return JwksIdentity(settings.auth_jwks_url, settings.issuer, settings.audience)
    return create_signer(settings)


def create_signer(settings: Settings) -> SharedSecret:
    """The service's own signature. Raises `ConfigurationError` where an identity provider signs instead."""
    if settings.identity == "jwks":
        raise ConfigurationError("LATCHKEY_AUTH_JWKS_URL: the identity provider signs the tokens, not this service")
    secret = settings.auth_key if settings.identity == "secret" else key_in(DEV_KEY)
    return SharedSecret(secret, settings.issuer, settings.audience)
