"""Settings of the client, read once from the environment (prefix `BATCHLING_`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from platformdirs import user_state_path
from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from .errors import WrongSettings
from .wire import keys, sealing
from .wire.deployment import connection, provider_settings, setting_files
from .wire.deployment.provider_settings import EndpointSettings
from .wire.deployment.setting_errors import mistake_in, sentence
from .wire.routes import Routes

LONGEST_ACCOUNT: Final = 200
SHORTEST_SECRET: Final = 16


def _usable_url(url: str | None) -> str | None:
    if not url:
        return None
    try:
        return connection.usable_url(url)
    except connection.UnusableUrl as error:
        # The library's own message may hold the password.
        raise ValueError(str(error).removeprefix("BATCHLING_REDIS_URL ")) from None


def _usable_key(key: str | None) -> str | None:
    if not key:
        return None
    try:
        sealing.digest(key)
    except sealing.UnreadableSealKey:
        raise ValueError("is not 32 bytes of base64: make a pair with `batchling keys new`") from None
    return key


def usable_account(name: str | None) -> str | None:
    """Return the name of an account without blanks around it; raise ValueError."""
    if name is None:
        return None
    name = name.strip()
    if not 0 < len(name) <= LONGEST_ACCOUNT or not name.isprintable():
        raise ValueError(f"must be a name of 1 to {LONGEST_ACCOUNT} printable characters")
    return name


class ClientSettings(BaseSettings):
    """Every setting that the caller's process reads."""

    model_config = SettingsConfigDict(
        env_prefix="BATCHLING_",
        env_nested_delimiter="__",
        # An empty home would be the current directory.
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    redis_url: Annotated[str | None, AfterValidator(_usable_url)] = Field(default=None, repr=False)
    """The deployment's Redis: redis://, rediss://, unix:// or sentinel://; unset = the embedded local stack."""
    home: Path = Field(default_factory=lambda: user_state_path("batchling"))
    """Where the embedded stack keeps data, logs, sockets and keys (mode 0700)."""
    namespace: Annotated[str, AfterValidator(keys.usable_namespace)] = "default"
    """Key prefix and hash tag; separates deployments on one Redis."""
    seal_public_key: Annotated[str | None, AfterValidator(_usable_key)] = None
    """The key that callers' credentials are sealed with; unset = the pair kept in `home/keys`."""
    account: Annotated[str | None, AfterValidator(usable_account)] = None
    """Name of the account whose requests these are, for tokens that are renewed: runs with the same name share batches
    and answers. Unset = the API key tells accounts apart."""
    account_secret: SecretStr | None = None
    """What proves that a caller belongs to a named account: 16 characters or more, the same for all callers. Unset =
    kept in `home/keys` for the embedded stack; elsewhere the name alone decides."""

    key_hints: bool = True
    """Whether the last four characters of API keys are stored, so that people can tell keys apart."""

    enabled: bool = True
    """Whether blocks do anything; `false` switches all of them off, for unit tests."""

    providers: Annotated[
        dict[str, EndpointSettings],
        AfterValidator(provider_settings.checked),
        AfterValidator(provider_settings.told_apart),
    ] = {}
    """By provider name: base URL and limits, as the workers have them."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, setting_files.FileSource(settings_cls, of_worker=False)

    @field_validator("account_secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < SHORTEST_SECRET:
            raise ValueError(
                f"must be at least {SHORTEST_SECRET} characters: `batchling keys new` prints one"
            )
        return secret

    @property
    def base_urls(self) -> dict[str, str]:
        """By provider name: what stands in for its host."""
        return {name: said.base_url for name, said in self.providers.items() if said.base_url}

    def routes(self) -> Routes:
        """Return the provider registry with this deployment's settings applied."""
        return provider_settings.routes_of(self.providers)


CACHE_PATH: Final = "BATCHLING_CACHE_PATH"
"""A variable of the original, in-process batchling."""


def of_the_original(environment: Mapping[str, str]) -> str:
    """Say that a variable of the original, in-process batchling is not used, where one is set; "" where none is."""
    if not environment.get(CACHE_PATH):
        return ""
    return (
        f"{CACHE_PATH} is not used: answers are kept in Redis, which without BATCHLING_REDIS_URL lies in "
        "BATCHLING_HOME. Unset it; a cache file of the original batchling is not read."
    )


def load(*, redis_url: str | None = None) -> ClientSettings:
    """Return the settings of the environment, with the given URL if any; raise `WrongSettings`."""
    try:
        return ClientSettings() if redis_url is None else ClientSettings(redis_url=redis_url)
    except (ValidationError, SettingsError) as error:
        name, reason = mistake_in(error)
    raise WrongSettings(sentence(name, reason))
