"""How rows are written as bytes: JSON, CSV cells, the layout of a batch, packed chunks."""
