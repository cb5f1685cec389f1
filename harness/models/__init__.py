"""Loading of vision-language models, and a search for their parts by structure."""
