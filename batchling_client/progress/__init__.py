"""Reports the state of a run's batches, and why they wait."""
