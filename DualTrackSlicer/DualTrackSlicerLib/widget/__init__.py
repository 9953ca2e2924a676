"""The panel. Only this folder imports qt."""
