"""What the command ``check`` looks at: one module for each area, and the checklist that runs them."""
