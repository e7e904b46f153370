"""An atlas in the layout of BrainGlobe's reader, made from a finished annotation and template."""
