"""Runs one step: claims the batch, holds its lease, keeps to its account, handles its errors."""
