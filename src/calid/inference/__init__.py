"""From a sparse stack to a dense volume."""
