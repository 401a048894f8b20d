"""Pruning a student, and INT8 of what is left."""
