"""Prompts of one image and one instruction: their words, tokens, lengths and hashes."""
