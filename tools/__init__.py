"""Programs of the checkout that no wheel needs."""
