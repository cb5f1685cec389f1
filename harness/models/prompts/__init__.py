"""Prompts of one image and one instruction: their text, tokens, lengths and hashes."""
