"""Command lines with invalid settings and their outcomes; see scripts/abuse.py."""
