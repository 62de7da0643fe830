"""One emulator a provider."""
