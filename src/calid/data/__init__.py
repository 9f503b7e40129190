"""Stacks as training material: phantoms, the cached bank, augmentation, sparse tuples."""
