"""What looks like a secret is masked in what is saved."""
