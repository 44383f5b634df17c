"""Odd files of every kind with the outcome that is right for each; see scripts/abuse_files.py."""
