"""The machine: processes, console, work root, files, git, platforms. The only modules that start processes or print."""
