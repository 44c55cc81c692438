"""The compact store, about 1 KB per image."""
