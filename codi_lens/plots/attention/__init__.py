"""Figures of attention and head scores."""
