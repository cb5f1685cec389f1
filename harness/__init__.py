"""A pytest harness that measures what happens between image and instruction tokens inside a vision-language model."""
