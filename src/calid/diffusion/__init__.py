"""Diffusion without networks: schedules, objectives, samplers. Pure functions."""
