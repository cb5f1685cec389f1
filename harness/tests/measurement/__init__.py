"""Tests of the room `measurement`."""
