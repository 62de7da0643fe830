"""Catches the calls of SDKs on their way to the network."""
