"""What figures are drawn with: colours and scales, panels, whiskers, views."""
