"""One report per command: its questions, asked and written into a folder with a page."""
