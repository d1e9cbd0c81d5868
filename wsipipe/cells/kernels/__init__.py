"""Loops over pixels, compiled with numba. No rule is decided here."""
