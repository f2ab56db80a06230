"""The measurements behind the numbers that the documentation quotes."""
