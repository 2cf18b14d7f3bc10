"""Pages and folders: what a report is written into."""
