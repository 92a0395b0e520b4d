"""Adapter for git hosts: archives are made from local mirrors of their repositories."""
