"""Training of small reference models. Import nothing from here at plugin discovery: it needs torch."""
