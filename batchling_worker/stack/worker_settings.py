"""The settings that a worker would read from an environment, looked at before one is started with it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsError

from batchling_client.wire import sealing

from ..settings import WorkerSettings
from . import state
from .errors import WrongSetting


def read(environment: Mapping[str, str]) -> WorkerSettings:
    """The worker's settings in that environment, whatever this process' own says. Raises `WrongSetting`."""

    class Given(WorkerSettings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            *_: PydanticBaseSettingsSource,
            **__: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            source = EnvSettingsSource(settings_cls)
            source.env_vars = {name.lower(): value for name, value in environment.items()}
            return (source,)

    try:
        given = Given()
        if given.seal_private_key is not None:
            given.seal_pair()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = "__".join(str(part) for part in first["loc"]).upper()
        reason = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise WrongSetting(f"BATCHLING_{name} is not usable: {reason}.") from None
    except SettingsError:
        raise WrongSetting("BATCHLING_PROVIDERS is not usable: it is not JSON.") from None
    except sealing.UnreadableSealKey as error:
        raise WrongSetting(f"BATCHLING_SEAL_PRIVATE_KEY is not usable: {error}") from None
    return given


def followed(settings: WorkerSettings) -> dict[str, str]:
    """Digests by name of what `state.FOLLOWED` tells callers of."""
    said = settings.model_dump(mode="json")
    return {
        name: state.value_digest(str(said[name.removeprefix("BATCHLING_").lower()]))
        for name in state.FOLLOWED
    }
