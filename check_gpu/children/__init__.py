"""Scripts that run in processes of their own, under the interpreter that is checked.

Each is one file that imports nothing of this project and appends what it sees to a file, a JSON object a line: what was
written before a crash stays.
"""
