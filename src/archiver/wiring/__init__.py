"""Puts processes together from the settings: the only package that knows every concrete class."""
