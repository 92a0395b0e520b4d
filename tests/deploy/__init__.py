"""The files in ``deploy/`` agree with the program, and with the programs that read them."""
