"""What BrainGlobe's reader demands of an atlas, and the documents by which it finds one."""
