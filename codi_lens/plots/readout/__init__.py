"""Figures of what thoughts say."""
