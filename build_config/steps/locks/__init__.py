"""The locks: read, refreshed, and the locked files downloaded."""
