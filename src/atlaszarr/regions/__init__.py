"""Region volumes and masks: the voxels of each structure in an annotation."""
