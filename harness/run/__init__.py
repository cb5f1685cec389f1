"""One session: options, the loaded model, stored baselines, verdicts given."""
