"""Readers and writers of file formats: wheels, archives, libraries, SBOMs."""
