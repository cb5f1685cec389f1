"""Local files: atomic writes, bounded reads, safe names, locks and canonical JSON."""
