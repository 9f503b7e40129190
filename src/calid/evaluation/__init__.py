"""Figures of merit and the protocols that use them."""
