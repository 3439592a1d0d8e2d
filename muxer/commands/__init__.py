"""The commands for administrators, one module each."""
