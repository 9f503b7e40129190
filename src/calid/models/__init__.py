"""Networks: autoencoder, context network (tau_1), injection (tau_2), denoiser."""
