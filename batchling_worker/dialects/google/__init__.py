"""Batches as Gemini and Vertex AI have them."""
