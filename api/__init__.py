"""HTTP in, HTTP out: what a client can ask for, and how it is answered."""
