"""Where samples come from: rendered scenes and their captions, and the content words of captions."""
