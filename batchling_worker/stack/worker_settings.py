"""The settings that a worker would read from an environment, checked before a worker is started with them."""

from __future__ import annotations

from collections.abc import Mapping

from batchling_client.wire import sealing
from batchling_client.wire.deployment import keyring, setting_names
from batchling_client.wire.deployment.setting_files import UnusableFile

from .. import settings
from ..settings import WorkerSettings
from . import state
from .errors import WrongSetting


def read(environment: Mapping[str, str]) -> WorkerSettings:
    """Return the worker's settings in that environment, ignoring this process' own. Raises `WrongSetting`."""
    try:
        given = settings.load(environment)
        if given.seal_private_key is not None or given.seal_private_key_file is not None:
            given.keyring()
    except (settings.WrongSetting, UnusableFile) as error:
        raise WrongSetting(str(error)) from None
    except sealing.UnreadableSealKey as error:
        raise WrongSetting(f"{keyring.NAME} is not usable: {error}") from None
    return given


def unread(environment: Mapping[str, str]) -> str:
    """Return the sentences on variables of that environment that no worker reads; empty if there are none."""
    return " ".join(str(one) for one in setting_names.unread(environment))


def followed(given: WorkerSettings) -> dict[str, str]:
    """Return digests by name of the settings in `state.FOLLOWED`, on which callers get a warning if theirs differ."""
    said = given.model_dump(mode="json")
    return {
        name: state.value_digest(str(said[name.removeprefix("BATCHLING_").lower()]))
        for name in state.FOLLOWED
    }
