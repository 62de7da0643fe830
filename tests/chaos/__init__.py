"""`make chaos`: workers, Redis and clients are killed while faults are injected; then every promise is checked."""
