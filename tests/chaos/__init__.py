"""Faults at random moments under load, and the checker that says whether anything was lost."""
