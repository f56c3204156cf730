"""`turnlog export`, `import`, `backup` and `restore`: a log moved out and in, whole and with the same hashes."""
