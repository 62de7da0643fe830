"""The short import, `from batchling import batchify`, and `python -m batchling`, which is the command."""

from batchling_client import DryRunEarlyExit, __version__, batchify, errors, outside

__all__ = ["DryRunEarlyExit", "__version__", "batchify", "errors", "outside"]

if __name__ == "__main__":
    from batchling_client.cli.main import main

    main()
