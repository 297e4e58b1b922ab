"""From bytes, a file or a URL to pixels, in processes of their own. Needs no torch."""
