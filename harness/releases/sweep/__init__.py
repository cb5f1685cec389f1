"""The type sweep: a tiny random model of every vision-language type of transformers, measured and verified."""
