"""Ventricles and myocardium: labels, and what is measured on them."""
