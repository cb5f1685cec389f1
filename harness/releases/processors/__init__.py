"""Processors of vision-language types: built without a hub, saved, loaded in another release, read and compared."""
