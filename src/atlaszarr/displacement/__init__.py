"""Displacement fields over a 2-D grid."""
