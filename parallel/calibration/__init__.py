"""Constants of training software and of serving engines, fitted to measured runs."""
