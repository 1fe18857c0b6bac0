"""Presets in JSON that users may open and copy."""
