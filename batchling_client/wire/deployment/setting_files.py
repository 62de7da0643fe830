"""Settings that are read from files, as Docker and Kubernetes hand over secrets: `NAME_FILE` holds a path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

PREFIX: Final = "BATCHLING_"
SUFFIX: Final = "_FILE"
PRIVATE_KEY: Final = "SEAL_PRIVATE_KEY"
WITH_FILE: Final = ("REDIS_URL", "SEAL_PUBLIC_KEY", PRIVATE_KEY, "ACCOUNT_SECRET")
PROVIDERS_WITH_FILE: Final = ("API_KEY", "HEADERS")
"""The settings that may be in a file: the deployment's, and those of a provider."""
OF_WORKERS: Final = (PRIVATE_KEY, "API_KEY")
"""Those of them that callers do not need, and do not read."""
URL: Final = tuple(f"{PREFIX}REDIS_URL{end}" for end in ("", SUFFIX))
"""Both names of the setting that says where Redis is. To set another URL, leave out both."""
LONGEST: Final = 64 * 1024
"""A longer file holds something else than a setting."""


class UnusableFile(SettingsError):
    """A setting names a file that holds none; `name` is the setting's, `reason` the rest of the sentence."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}.")
        self.name = name
        self.reason = reason


def read(path: Path, name: str) -> str:
    """Return what the file of a setting holds, without blanks around it; raise `UnusableFile`."""
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST + 1)
        text = raw.decode("utf-8").strip()
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else type(error).__name__
        raise UnusableFile(name, f"names {path}, which cannot be read ({why})") from None
    except UnicodeDecodeError:
        text = ""
    if len(raw) > LONGEST or not text or not text.replace("\n", "").replace("\r", "").isprintable():
        raise UnusableFile(name, f"names {path}, which holds no setting")
    return text


def filled(environment: Mapping[str, str | None], *, of_worker: bool) -> dict[str, str | None]:
    """Return an environment of lower-case names with each setting that a file holds, and without the files' names.

    A caller reads no file that only workers need. Raise `UnusableFile`.
    """
    found = dict(environment)
    for spelt, path in environment.items():
        name = spelt.upper()
        wanted = _setting_in(name)
        if wanted is None or not path:
            continue
        del found[spelt]
        if not of_worker and wanted in OF_WORKERS:
            continue
        plain = spelt[: -len(SUFFIX)]
        if environment.get(plain):
            raise UnusableFile(name, f"and {plain.upper()} are both set: leave one of them out")
        if wanted == PRIVATE_KEY:
            # A worker reads this file again when it changes, and so has to know its name.
            found[spelt] = path
        else:
            found[plain] = read(Path(path), name)
    return found


def named_in(environment: Mapping[str, str]) -> dict[str, Path]:
    """Return the files that the environment names, by the name of the setting."""
    return {
        name.upper(): Path(path)
        for name, path in sorted(environment.items())
        if path and _setting_in(name.upper()) is not None
    }


def _setting_in(name: str) -> str | None:
    """Return the setting that the file of a variable holds, by its last word; None for any other variable."""
    if not (name.startswith(PREFIX) and name.endswith(SUFFIX)):
        return None
    plain = name.removeprefix(PREFIX).removesuffix(SUFFIX)
    if plain in WITH_FILE:
        return plain
    words = plain.split("__")
    provider = len(words) == 3 and words[0] == "PROVIDERS"
    return words[-1] if provider and words[-1] in PROVIDERS_WITH_FILE else None


class FileSource(EnvSettingsSource):
    """The environment, with the settings that files hold."""

    def __init__(
        self,
        settings_class: type[BaseSettings],
        *,
        of_worker: bool,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(settings_class)
        given: Mapping[str, str | None] = self.env_vars
        if environment is not None:
            given = {name.lower(): value for name, value in environment.items() if value}
        self.env_vars = filled(given, of_worker=of_worker)
