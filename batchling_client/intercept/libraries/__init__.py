"""One interceptor a library that sends: `switch` finds them here, and imports none before a block is open."""
