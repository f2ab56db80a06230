"""The worker: a parent that speaks to the store and holds leases, and a predictor child that holds the models."""
