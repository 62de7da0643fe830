"""The records that client and worker keep in Redis."""
