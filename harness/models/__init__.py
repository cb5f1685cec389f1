"""Where models come from, and finding the parts inside them by structure."""
