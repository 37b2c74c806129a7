"""Many runs of one experiment over a grid of settings; starts fast and never imports torch."""
