"""The type sweep: every vision-language type of transformers, as a tiny random model, held against its own numbers."""
