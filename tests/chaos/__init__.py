"""`make chaos`: workers, Redis and clients are killed while the weather is bad; then the books are checked."""
