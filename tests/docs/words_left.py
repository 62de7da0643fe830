"""`python -m tests.docs.words_left [FOLDER ...]`: print each line with a banned fragment, and how many there are."""

from __future__ import annotations

import sys

from .test_words import hits


def main(folders: list[str]) -> int:
    """Print the lines below the folders, or all of them; return how many."""
    found = [hit for hit in hits() if not folders or hit.startswith(tuple(folders))]
    sys.stdout.write("\n".join([*found, f"{len(found)} left", ""]))
    return len(found)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
