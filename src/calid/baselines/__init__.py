"""What CaLID is measured against: one file a method, one signature for all."""
