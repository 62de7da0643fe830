"""Reaches a deployment, looks at what runs there, and steers it."""
