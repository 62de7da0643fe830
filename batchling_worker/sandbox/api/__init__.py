"""The HTTP side of the emulated providers."""
