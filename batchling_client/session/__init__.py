"""Turns calls into requests in Redis, and answers from Redis into replies."""
