"""Settings of workers and of the embedded stack, read once from the environment (prefix `BATCHLING_`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from platformdirs import user_state_path
from pydantic import AfterValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from batchling_client.wire import keys
from batchling_client.wire.answer_shape import LONGEST_ANSWER_BYTES
from batchling_client.wire.deployment import connection, provider_settings, setting_files
from batchling_client.wire.deployment.keyring import Keyring
from batchling_client.wire.deployment.provider_settings import EndpointSettings
from batchling_client.wire.deployment.setting_errors import mistake_in, sentence
from batchling_client.wire.sealing import Hidden

RESULT_TTL_S: Final = keys.RESULTS.ms // 1000


def _usable_url(url: str) -> str:
    try:
        return url and connection.usable_url(url)
    except connection.UnusableUrl as error:
        raise ValueError(str(error).removeprefix("BATCHLING_REDIS_URL ")) from None


class WrongSetting(ValueError):
    """A setting in an environment is not usable; the text is one sentence that names it, and never its value."""


class ProviderSettings(EndpointSettings):
    """What a deployment says of one provider."""

    # A BaseSettings here would read the environment's API_KEY and BASE_URL too.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    api_key: SecretStr | None = None
    """The key to use instead of the callers' own."""
    own_credential: bool = False
    """Use the worker's own Google credential (Application Default Credentials) instead of the callers', for Vertex."""
    poll_interval_seconds: float | None = Field(default=None, ge=0)
    """Shortest time between two looks at a batch of this provider; unset = what it asks for."""
    staging: str = ""
    """Where input and result files lie, for a provider that keeps none itself: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX."""
    staging_url: str = ""
    """Stands in for the scheme and host of that object store."""
    role_arn: str = ""
    """The AWS role that Bedrock reads and writes these files as."""


class DashboardSettings(BaseSettings):
    """Every setting the dashboard reads: where the deployment is, and no key."""

    model_config = SettingsConfigDict(
        env_prefix="BATCHLING_",
        env_nested_delimiter="__",
        # An empty home would be the current directory.
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    redis_url: Annotated[str, AfterValidator(_usable_url)] = Field(default="", repr=False)
    """The deployment's Redis: redis://, rediss://, unix:// or sentinel://."""
    home: Path = Field(default_factory=lambda: user_state_path("batchling"))
    """Where the embedded stack keeps data, logs, sockets and keys (mode 0700)."""
    namespace: Annotated[str, AfterValidator(keys.usable_namespace)] = "default"
    """Key prefix and hash tag; separates deployments on one Redis."""
    log_format: Literal["text", "logfmt", "json"] = "text"
    """How log lines are written: as quoted logfmt (`text`, or `logfmt`), or each as a JSON object (`json`)."""
    flower_hosts: str = ""
    """Names under which people open the dashboard's pages, separated by commas, besides localhost; * = any name."""
    flower_without_login: bool = False
    """Let Flower listen beyond loopback without a login of its own, because what is in front of it asks for one."""

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Other settings may name files of keys, which the dashboard must not read.
        own = {name: value for name, value in os.environ.items() if name.upper() in of_dashboard()}
        return init_settings, setting_files.FileSource(settings_cls, of_worker=False, environment=own)


def of_dashboard() -> frozenset[str]:
    """Return the names of the variables that the dashboard reads."""
    names = {f"BATCHLING_{name.upper()}" for name in DashboardSettings.model_fields}
    return frozenset({*names, *(f"{name}{setting_files.SUFFIX}" for name in names)})


class WorkerSettings(DashboardSettings):
    """Every setting a worker reads."""

    providers: Annotated[dict[str, ProviderSettings], AfterValidator(provider_settings.checked)] = {}
    """By provider name: base URL, key and limits."""
    seal_public_key: str | None = None
    """The key that callers' credentials are sealed with."""
    seal_private_key: SecretStr | None = None
    """The keys that open them, between commas: callers seal for the first one, the others open what is older."""
    seal_private_key_file: Path | None = None
    """A file with these keys, one a line; it is read again when it changes."""
    result_ttl_seconds: float = Field(default=RESULT_TTL_S, gt=0)
    """How long answers are kept."""
    poll_interval_seconds: float = Field(default=10.0, gt=0)
    """Shortest time between two looks at a running batch, where the caller named none."""
    lease_seconds: float = Field(default=30.0, gt=0)
    """How long a worker holds a batch without a sign of life."""
    max_attempts: int = Field(default=3, ge=1)
    """In how many batches a request is tried."""
    tick_seconds: float = Field(default=0.1, gt=0)
    """How often a worker looks for what is due."""
    reconcile_patience_seconds: float = Field(default=180.0, ge=0)
    """How long a batch whose create went unanswered is searched for before it is created again."""
    results_patience_seconds: float = Field(default=180.0, ge=0)
    """How long the results of an ended batch are read again before a request that they lack is run again."""
    longest_answer_bytes: int = Field(default=LONGEST_ANSWER_BYTES, ge=1)
    """Bytes of a row of results; a request whose row is longer gets an error, and `batchling retry` reads it again."""
    batch_answers_bytes: int = Field(default=1024**3, ge=1)
    """Bytes that a batch's answers may take in Redis; callers of the others get an error, until a retry reads them."""
    remote_control: Literal["read", "all"] = "read"
    """Which remote commands of Celery a worker obeys: those that read, or also those that change or stop it."""
    keep_files: bool = False
    """Leave input and result files at the provider: no expiry is asked for, and nothing is deleted."""
    fsync_intent: bool = False
    """A create is sent only once Redis has confirmed that the record of it is on disk (WAITAOF, Redis 7.2)."""
    fsync_replicas: int = Field(default=0, ge=0)
    """On the disks of how many replicas it must be as well."""
    http_silence_seconds: float = Field(default=120.0, gt=0)
    """How long a provider may say nothing in the middle of a call before it is given up."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, setting_files.FileSource(settings_cls, of_worker=True)

    def keyring(self) -> Keyring:
        """Return the private seal keys of the settings, else those in `home/keys`; raise `UnusableFile` and what
        reading them raises."""
        secret = self.seal_private_key
        given = None if secret is None else Hidden(secret.get_secret_value())
        return Keyring(given, self.seal_private_key_file, self.home)


def load_dashboard() -> DashboardSettings:
    """Return the dashboard's settings of this process' environment. Raises `WrongSetting`."""
    try:
        return DashboardSettings()
    except (ValidationError, SettingsError) as error:
        name, reason = mistake_in(error)
    raise WrongSetting(sentence(name, reason))


def load(environment: Mapping[str, str] | None = None) -> WorkerSettings:
    """Return the settings of an environment, by default this process'. Raises `WrongSetting`."""
    try:
        return WorkerSettings() if environment is None else _of(environment)
    except (ValidationError, SettingsError) as error:
        name, reason = mistake_in(error)
    raise WrongSetting(sentence(name, reason))


def _of(environment: Mapping[str, str]) -> WorkerSettings:
    """Return the settings of another environment than this process'; an empty value counts as unset, as everywhere."""

    class Given(WorkerSettings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            *_: PydanticBaseSettingsSource,
            **__: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (setting_files.FileSource(settings_cls, of_worker=True, environment=environment),)

    return Given()
