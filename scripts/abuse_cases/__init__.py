"""Unusual files of every kind with their expected outcomes; see scripts/abuse_files.py."""
