"""Says how the batches of a run stand, and why they wait."""
