"""Test configuration shared by the core tests."""
