"""Volumes side by side in the browser: one page, no network."""
