"""Scripts that run in separate processes, under the interpreter that is checked.

Each is one file that imports nothing of this project. It appends what it sees to a file, one JSON object per line, so
that a crash does not lose it.
"""
