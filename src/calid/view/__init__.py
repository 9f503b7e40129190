"""Volumes side by side in the browser: one page that needs no network."""
