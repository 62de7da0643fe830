"""The embedded stack: Redis, one worker and Flower of one's own, detached from whoever started them.

`attach.up` is on the path of every first request: it and what it imports stay small, and psutil is not among it.
"""
