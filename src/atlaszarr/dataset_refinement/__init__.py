"""Refine the registration of a section dataset: its depths, and a displacement field for each section, with figures."""
