"""Region volumes and masks."""
