"""Output for readers: tables, figures, messages and the HTML page."""
