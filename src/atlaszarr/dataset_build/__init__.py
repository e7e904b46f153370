"""Plan and build of a section dataset."""
