"""What `syncect doctor` looks at: small checks, a table of them, and what runs them within a limited time."""
