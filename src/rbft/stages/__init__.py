"""What each kind of stage does with a trainer, and what it leaves in its folder."""
