"""Figures of what thoughts say, and of what writes the answer."""
