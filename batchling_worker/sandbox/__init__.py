"""Provider emulators, used by `batchling sandbox`, `batchling demo`, `--sandbox` and the tests."""

from .emulator import names
from .serve import serve
from .server import Sandbox
from .world.clock import Clock
from .world.faults import FaultTable
from .world.ledger import LedgerPage
from .world.world import Limits

__all__ = ["Clock", "FaultTable", "LedgerPage", "Limits", "Sandbox", "names", "serve"]
