"""Plays programs before the sandbox: the demo, `--sandbox` and `batchling sandbox -- CMD`."""
