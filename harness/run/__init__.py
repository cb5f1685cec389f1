"""The run: options, loaded model, measured pairs, baselines and results of a session."""
