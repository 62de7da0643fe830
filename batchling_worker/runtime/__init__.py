"""Runs steps inside Celery: the tick, its messages, the step loop, a graceful shutdown."""
