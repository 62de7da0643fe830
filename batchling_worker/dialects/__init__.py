"""What several providers have in common: how to call them, and how to read what they answer."""
