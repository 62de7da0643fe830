"""Limits on an owner's files: how many, and how many bytes."""

from __future__ import annotations

from collections.abc import Sequence

from ..world.world import Limits
from .dialect import Refusal, Traits
from .records import StoredFile


def check_room(
    traits: Traits, limits: Limits, files: Sequence[StoredFile], n_bytes: int, *, lasting: bool
) -> None:
    """Raise Refusal if an upload exceeds the limits of its owner, who has these files."""
    uploaded = [file for file in files if file.purpose != "batch_output"]
    most_lasting = traits.most_lasting_files if limits.max_files is None else limits.max_files
    most_bytes = traits.most_stored_bytes if limits.max_stored_bytes is None else limits.max_stored_bytes
    if lasting and most_lasting is not None and sum(one.lasting for one in uploaded) >= most_lasting:
        message = f"The quota for files without expiry is reached. The maximum is {most_lasting}."
        raise Refusal(400, message, code="quotaExceeded")
    if traits.most_files is not None and len(uploaded) >= traits.most_files:
        message = f"The quota for files is reached. The maximum is {traits.most_files}."
        raise Refusal(400, message, code="quotaExceeded")
    if most_bytes is not None and sum(file.n_bytes for file in files) + n_bytes > most_bytes:
        raise traits.storage_full(most_bytes)
