"""Connects to a deployment, reads its state, cancels and retries."""
