"""Refinement: a better registration of section images to an annotation, section by section. Arithmetic only."""
