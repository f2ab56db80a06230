"""Tiny models that behave badly, one way each, for every rule to meet."""
