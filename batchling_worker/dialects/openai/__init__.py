"""Batches as OpenAI and those that follow its API have them."""
