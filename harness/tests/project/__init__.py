"""Tests of the project itself: rooms, documents and workflows."""
