"""The published standard for atlases (Atlas Asset Organization): the names of its assets."""
