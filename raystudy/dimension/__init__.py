"""How many degrees of freedom the input has, and what that suggests for the latent width."""
