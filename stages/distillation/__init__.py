"""Packed text, masking, the student, the triple loss, and resumable training."""
