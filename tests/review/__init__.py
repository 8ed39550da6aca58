"""Tests of what a reading of the API against its documents brought up."""
