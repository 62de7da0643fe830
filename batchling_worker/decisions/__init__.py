"""Decides what becomes of batches and rows: no clock, no network, no Redis."""
