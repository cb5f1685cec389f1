"""Datasets: rendered scenes, COCO Captions and Winoground, and the content words of captions."""
