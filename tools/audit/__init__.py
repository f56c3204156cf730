"""`turnlog audit`: what the log holds, for those who have to know."""
