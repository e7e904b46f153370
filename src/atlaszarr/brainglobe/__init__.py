"""An atlas laid out as BrainGlobe's reader opens it, made from a finished annotation and template."""
