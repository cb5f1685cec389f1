"""Hooks on the forward pass, which reduce similarity, attention and logit lens layer by layer."""
