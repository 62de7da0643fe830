"""Runs programs against the sandbox: the demo, `--sandbox` and `batchling sandbox -- CMD`."""
