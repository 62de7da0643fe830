"""One interceptor a library that sends: `switch.ADAPTERS` names them, and imports none before a block is open."""
