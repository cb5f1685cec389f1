"""Tiny random models of the vision-language types of transformers, and prompts for them."""
