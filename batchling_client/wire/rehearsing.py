"""What a rehearsal puts into a program's environment, so that every process of it keeps away from real providers."""

from typing import Final

SANDBOX: Final = "BATCHLING_SANDBOX"
"""The sandbox's URL; a process that imports batchling sends no call to a real provider while it is set."""
SERVED: Final = "BATCHLING_SANDBOX_PROVIDERS"
"""The providers that the sandbox stands in for, between commas; unset or empty = all."""
NO_ACCOUNT: Final = "sandbox-needs-no-key"
"""In the place of every API key."""
