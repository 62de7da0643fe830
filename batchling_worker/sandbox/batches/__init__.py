"""The batches and files of the emulated providers, and how they run."""
