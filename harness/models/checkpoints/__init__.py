"""Checks of a checkpoint directory before anything of it is loaded.

Everywhere here, `folder` is the directory, `source` the name of the checkpoint in messages, and `settings` the contents
of config.json.
"""
