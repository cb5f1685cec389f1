"""Tests of the project itself: its rooms, its documents, its workflows."""
