"""What the black-box tests share: a raw HTTP client, a registry driver, and real Argosy processes."""
