"""What attends to what: extraction, views, and one question per module."""
