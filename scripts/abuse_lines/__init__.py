"""Command lines with settings that may not be, and what comes of each; see scripts/abuse.py."""
