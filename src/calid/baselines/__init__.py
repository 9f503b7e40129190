"""What CaLID is measured against: rules, registration, latent rules and learned networks."""
