"""A package index of published wheels as a folder that any web server can serve: docs/sharing.md."""
