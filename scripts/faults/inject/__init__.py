"""Faults while packets flow, and what they cost."""
