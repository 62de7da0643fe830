"""The files of one provider: bytes on disk, metadata in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from ..world.world import World
from .records import StoredFile


class FileShelf:
    """Keeps files by id until they are deleted or expire; only its owner sees a file."""

    def __init__(self, world: World, provider: str, new_id: Callable[[], str]) -> None:
        self._world = world
        self._provider = provider
        self._new_id = new_id
        self._files: dict[str, StoredFile] = {}
        self._scratch = itertools.count()

    def new_id(self) -> str:
        """Return an id for a file that is added later."""
        return self._new_id()

    def scratch(self) -> Path:
        """Return a path for a file that is being written."""
        return self._world.directory / f"{self._provider}-{next(self._scratch)}"

    def add(
        self,
        path: Path,
        *,
        owner: str,
        filename: str,
        purpose: str,
        retention_s: float,
        model: str | None = None,
        hidden_s: float = 0.0,
        pending_s: float = 0.0,
        at: float | None = None,
        file_id: str | None = None,
    ) -> StoredFile:
        """Add a written file, created now or at the unix second `at`, under a fresh id or `id`."""
        created_at = self._world.clock.now() if at is None else at
        file = StoredFile(
            id=file_id or self._new_id(),
            owner=owner,
            path=path,
            filename=filename,
            purpose=purpose,
            n_bytes=path.stat().st_size,
            created_at=created_at,
            expires_at=created_at + retention_s,
            model=model,
            hidden_until=created_at + hidden_s if hidden_s else 0.0,
            processed_at=created_at + pending_s,
        )
        self._files[file.id] = file
        return file

    def find(self, file_id: str, owner: str) -> StoredFile | None:
        """Return the file if this owner can see it now."""
        file = self._files.get(file_id)
        return file if file is not None and self._visible(file, owner) else None

    def taken(self, file_id: str) -> bool:
        """Return whether any owner's file has this id, even if it is not visible now."""
        file = self._files.get(file_id)
        return file is not None and (file.expires_at is None or self._world.clock.now() < file.expires_at)

    def newest_first(self, owner: str) -> list[StoredFile]:
        """Return every file that this owner can see now."""
        return [file for file in reversed(self._files.values()) if self._visible(file, owner)]

    def remove(self, file: StoredFile) -> None:
        """Delete a file and its bytes."""
        del self._files[file.id]
        file.path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete every file."""
        for file in list(self._files.values()):
            self.remove(file)

    def _visible(self, file: StoredFile, owner: str) -> bool:
        now = self._world.clock.now()
        return (
            file.owner == owner
            and file.hidden_until <= now
            and (file.expires_at is None or now < file.expires_at)
        )
