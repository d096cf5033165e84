"""What a study is: its file, its space, its identity. Pure Python, imports nothing heavy."""
