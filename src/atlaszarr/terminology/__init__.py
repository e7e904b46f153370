"""The structures of an atlas."""
