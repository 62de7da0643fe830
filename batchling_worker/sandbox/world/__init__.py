"""The state that all emulated providers share: clock, faults, ledger."""
