"""The embedded stack: Redis, one worker and Flower of one's own, detached from the process that started them.

`attach.up` is on the path of every first request: keep it and its imports small, without psutil.
"""
