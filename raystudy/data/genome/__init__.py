"""From an annotation, a genome and a table of levels to genes: what a user brings, read, judged and cut out."""
