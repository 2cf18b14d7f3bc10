"""Figures of effects: sweeps, sets of heads, pairs of problems, attribution."""
