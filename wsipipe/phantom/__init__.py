"""Slides that are drawn, with their truth."""
