"""Do two versions of the code write the same files? `python -m tests.same_bytes BEFORE AFTER` runs one list of commands with
both and compares every file that they write.

inputs.py (models and corpora, made once) → commands.py (the list) → driver.py (runs it, in a process of each version) →
compare.py (file by file).
"""
