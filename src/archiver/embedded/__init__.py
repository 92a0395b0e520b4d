"""The servers and processes of an all-in-one run: started, kept alive and ended in order."""
