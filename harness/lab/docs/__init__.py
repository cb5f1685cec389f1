"""Parts of the documents that programs write."""
