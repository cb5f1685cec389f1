"""Snapshots of models and datasets from the model hub: in its local cache, or fetched into it."""
