"""Programs written for NEATPy 1.0, mostly as processes of their own."""
