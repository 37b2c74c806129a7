"""Reading videos: which frames, exactly those, or a refusal."""
