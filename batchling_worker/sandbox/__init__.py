"""Provider emulators: what `batchling sandbox`, `batchling demo`, `--sandbox` and the tests talk to."""

from .clock import Clock
from .emulator import names
from .faults import FaultTable
from .foreground import serve
from .ledger import LedgerPage
from .server import Sandbox
from .world import Limits

__all__ = ["Clock", "FaultTable", "LedgerPage", "Limits", "Sandbox", "names", "serve"]
