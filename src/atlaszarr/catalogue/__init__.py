"""Catalogues: dated snapshots of the records of section datasets and section images, as two Parquet tables.

Knows the shape of the records, and neither HTTP nor what a registration needs of them.
"""
