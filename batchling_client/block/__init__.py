"""What a block of the program does: it starts, waits for its calls, and ends."""
