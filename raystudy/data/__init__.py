"""From archives and genomes to a gene table, a leak-free split and batches."""
