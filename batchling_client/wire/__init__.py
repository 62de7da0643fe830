"""The contract between client and worker: keys, states, records, scripts, routes, sealing."""
