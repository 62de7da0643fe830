"""Files of requests in, files of answers out: `submit` and `results`."""
