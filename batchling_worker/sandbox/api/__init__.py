"""What a provider answers over HTTP."""
