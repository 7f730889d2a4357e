"""User authentication as the settings configure it: an identity provider, a shared secret, or the development key."""

from datetime import timedelta
from pathlib import Path

from latchkey.config import ConfigurationError, Settings
from latchkey.domain.credentials import UserId
from latchkey.domain.errors import NotFound
from latchkey.infrastructure.identity.jwks import JwksIdentity
from latchkey.infrastructure.identity.shared_secret import SharedSecret, load_signing_key
from latchkey.interfaces.cli import IssuedToken

DEV_KEY = Path("var/signing.key")
DEV_USER = UserId("me")


def create_identity(settings: Settings) -> SharedSecret | JwksIdentity:
    """Create the identity adapter. Raises `ConfigurationError` if authentication is not configured."""
    settings.require_identity()
    if settings.auth_jwks_url is not None:
        return JwksIdentity(settings.auth_jwks_url, settings.issuer, settings.audience)
    return create_signer(settings)


def issue_token(settings: Settings, user_id: UserId, ttl: timedelta) -> IssuedToken:
    """Sign a token with the key of the service. Raises `NotFound` if there is none in this folder.

    It makes no key: the service would refuse tokens that are signed with another key than its own.
    """
    try:
        signer = create_signer(settings, create_key=False)
    except NotFound as error:
        raise NotFound(
            f"There is no signing key in this folder: {DEV_KEY.absolute()} does not exist or is empty. Run this command"
            " in the folder of the service, or start `latchkey serve --dev` here first, or set LATCHKEY_AUTH_SECRET to"
            " the secret of the service."
        ) from error
    key = "LATCHKEY_AUTH_SECRET" if settings.identity == "secret" else f"the key of --dev, {DEV_KEY.absolute()}"
    return IssuedToken(signer.sign(user_id, ttl), key)


def create_signer(settings: Settings, *, create_key: bool = True) -> SharedSecret:
    """Create the adapter that also signs tokens; `create_key` makes the development key if there is none.

    Raises `ConfigurationError` if an identity provider signs the tokens, and `NotFound` if there is no key.
    """
    if settings.identity == "jwks":
        raise ConfigurationError("LATCHKEY_AUTH_JWKS_URL: the identity provider signs the tokens, not this service")
    secret = settings.auth_key if settings.identity == "secret" else load_signing_key(DEV_KEY, create=create_key)
    return SharedSecret(secret, settings.issuer, settings.audience)
