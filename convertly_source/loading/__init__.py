"""Whole loads in a pipeline."""
