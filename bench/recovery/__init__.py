"""How long it takes until work that was dropped goes on, and whether anything is lost: `python -m bench.recovery`."""
