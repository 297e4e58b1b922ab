"""Models, and changing the one that is searched."""
