"""2-D images sampled at coordinates."""
