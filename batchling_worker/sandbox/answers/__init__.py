"""The answers that the emulated models give."""
