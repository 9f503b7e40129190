"""Many subjects: find them, share them out, reconstruct each once, and say what became of it."""
