"""Figures, and a page about a reconstruction."""
