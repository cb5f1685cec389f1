"""Checks of a checkpoint directory before anything is loaded from it.

In this package, `folder` is the directory, `source` the name of the checkpoint in messages, and `settings` the
contents of config.json.
"""
