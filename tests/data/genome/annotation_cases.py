"""Annotations as their sources write them, small: what each must be read as is in the tests."""

from __future__ import annotations


def row(
    kind: str,
    start: object,
    end: object,
    attributes: str,
    strand: str = "+",
    phase: object = ".",
    chrom: str = "1",
) -> str:
    """A line of GTF or GFF3."""
    return f"{chrom}\tsource\t{kind}\t{start}\t{end}\t.\t{strand}\t{phase}\t{attributes}\n"


_E = 'gene_id "ENSG1"; gene_version "7"; '
_T = _E + 'transcript_id "ENST1"; exon_number "1"; gene_name "OR4F5; so"; gene_biotype "protein_coding"; tag "basic"; '
_U = _E + 'transcript_id "ENST2"; gene_name "OR4F5; so"; gene_biotype "protein_coding"; tag "basic"; tag "cds_end_NF"; '
_MINUS = 'gene_id "ENSG2"; transcript_id "ENST3"; '

ENSEMBL_GTF = (
    "#!genome-build GRCh38.p14\n"
    + row("gene", 100, 900, _E)
    + row("transcript", 100, 900, _T)
    + row("exon", 100, 200, _T)
    + row("exon", 300, 400, _T)
    + row("exon", 800, 900, _T)
    + row("CDS", 150, 200, _T + 'protein_id "ENSP1"; protein_version "2";', phase=0)
    + row("CDS", 300, 399, _T + 'protein_id "ENSP1";', phase=0)
    + row("start_codon", 150, 152, _T, phase=0)
    + row("stop_codon", 400, 400, _T, phase=0)  # a stop codon over an intron
    + row("stop_codon", 800, 801, _T, phase=2)
    + row("five_prime_utr", 100, 149, _T)
    + row("transcript", 140, 400, _U)
    + row("exon", 140, 400, _U)
    + row("CDS", 150, 400, _U + 'protein_id "ENSP2";', phase=0)
    + row("gene", 5000, 5900, 'gene_id "ENSG9"; gene_biotype "lncRNA";')
    + row("exon", 5000, 5900, 'gene_id "ENSG9"; transcript_id "ENST9";')
    + row("gene", 2000, 2900, 'gene_id "ENSG2";', strand="-")
    + row("CDS", 2603, 2700, _MINUS, strand="-", phase=0)
    + row("stop_codon", 2600, 2602, _MINUS, strand="-", phase=0)
    + row("UTR", 2701, 2750, _MINUS, strand="-")
)

ENSEMBL_GFF3 = (
    "##gff-version 3\n##sequence-region   Chromosome 1 5000\n"
    + row("chromosome", 1, 5000, "ID=chromosome:Chromosome;Alias=U00096.3;Is_circular=true", ".", chrom="Chromosome")
    + "###\n"
    + row("gene", 100, 900, "ID=gene:ENSG1;Name=BRCA%3B1;biotype=protein_coding;gene_id=ENSG1;version=7")
    + row("mRNA", 100, 900, "ID=transcript:ENST1;Parent=gene:ENSG1;Name=BRCA-201;transcript_id=ENST1;tag=basic")
    + row("five_prime_UTR", 100, 149, "Parent=transcript:ENST1")
    + row("exon", 100, 200, "Parent=transcript:ENST1;Name=ENSE1;exon_id=ENSE1;rank=1")
    + row("exon", 300, 400, "Parent=transcript:ENST1,transcript:ENST2;Name=ENSE2;exon_id=ENSE2;rank=2")
    + row("CDS", 150, 200, "ID=CDS:ENSP1;Parent=transcript:ENST1;protein_id=ENSP1", phase=0)
    + row("CDS", 300, 350, "ID=CDS:ENSP1;Parent=transcript:ENST1;protein_id=ENSP1", phase=0)
    + row("mRNA", 300, 400, "ID=transcript:ENST2;Parent=gene:ENSG1;transcript_id=ENST2")
    + row("CDS", 301, 350, "ID=CDS:ENSP2;Parent=transcript:ENST2;protein_id=ENSP2", phase=2)
    + row("ncRNA_gene", 2000, 2100, "ID=gene:ENSG5;biotype=lncRNA;gene_id=ENSG5")
    + row("lnc_RNA", 2000, 2100, "ID=transcript:ENST5;Parent=gene:ENSG5;biotype=lncRNA;transcript_id=ENST5")
    + row("exon", 2000, 2100, "Parent=transcript:ENST5")
    + row("pseudogene", 3000, 3100, "ID=gene:ENSG6;biotype=pseudogene;gene_id=ENSG6")
    + row("pseudogenic_transcript", 3000, 3100, "ID=transcript:ENST6;Parent=gene:ENSG6;biotype=pseudogene")
    + row("CDS", 3000, 3100, "ID=CDS:ENSP6;Parent=transcript:ENST6", phase=0)
)

REFSEQ_EUKARYOTE = (
    "##gff-version 3\n"
    + row("region", 1, 9000, "ID=NC_1:1..9000;Dbxref=taxon:9606;Name=1;gbkey=Src;genome=chromosome")
    + row("gene", 100, 900, "ID=gene-TP53;Dbxref=GeneID:7157,HGNC:HGNC:11998;Name=TP53;gene=TP53;gene_synonym=P53,LFS1")
    + row(
        "mRNA",
        100,
        900,
        "ID=rna-NM_1.2;Parent=gene-TP53;Dbxref=GeneID:7157;gene=TP53;partial=true;transcript_id=NM_1.2",
    )
    + row("exon", 100, 900, "ID=exon-NM_1.2-1;Parent=rna-NM_1.2;gene=TP53")
    + row("CDS", 200, 499, "ID=cds-NP_1.1;Parent=rna-NM_1.2;gene=TP53;protein_id=NP_1.1;transl_table=1", phase=0)
    + row("gene", 1000, 1900, "ID=gene-CUT;Name=CUT;gene=CUT;partial=true", "-")
    + row("mRNA", 1000, 1900, "ID=rna-X;Parent=gene-CUT;partial=true", "-")
    + row("CDS", 1000, 1900, "ID=cds-X;Parent=rna-X;partial=true;start_range=.,1000", "-", 0)
    + row("gene", 2000, 2900, "ID=gene-OAZ1;gene=OAZ1")
    + row("mRNA", 2000, 2900, "ID=rna-O;Parent=gene-OAZ1")
    + row("CDS", 2000, 2100, "ID=cds-O;Parent=rna-O;exception=ribosomal slippage", phase=0)
    + row("CDS", 2102, 2900, "ID=cds-O;Parent=rna-O;exception=ribosomal slippage", phase=0)
    + row("gene", 3000, 3900, "ID=gene-PEG10;gene=PEG10")
    + row("mRNA", 3000, 3900, "ID=rna-P;Parent=gene-PEG10")
    + row("CDS", 3000, 3100, "ID=cds-P1;Parent=rna-P;exception=ribosomal slippage", phase=0)
    + row("CDS", 3100, 3900, "ID=cds-P1;Parent=rna-P;exception=ribosomal slippage", phase=0)
    + row("CDS", 3000, 3200, "ID=cds-P2;Parent=rna-P", phase=0)
    + row("pseudogene", 4000, 4900, "ID=gene-PS;gene=PS;pseudo=true")
    + row("CDS", 4000, 4900, "ID=cds-PS;Parent=gene-PS;pseudo=true", phase=0)
)

REFSEQ_PROKARYOTE = (
    row("region", 1, 5000, "ID=NC_9:1..5000;Is_circular=true;Name=ANONYMOUS;gbkey=Src", chrom="NC_9")
    + row("gene", 190, 255, "ID=gene-b0001;Name=thrL;gbkey=Gene;gene=thrL;locus_tag=b0001", chrom="NC_9")
    + row(
        "CDS",
        190,
        255,
        "ID=cds-NP_414542.1;Parent=gene-b0001;gene=thrL;locus_tag=b0001;protein_id=NP_414542.1;transl_table=11",
        phase=0,
        chrom="NC_9",
    )
    + row("gene", 4900, 5060, "ID=gene-b0002;locus_tag=b0002", chrom="NC_9")
    + row("CDS", 4900, 5060, "ID=cds-A;Parent=gene-b0002;locus_tag=b0002", phase=0, chrom="NC_9")
    + row("gene", 1, 5000, "ID=gene-b0003;locus_tag=b0003", "-", chrom="NC_9")
    + row("CDS", 1, 90, "ID=cds-B;Parent=gene-b0003;locus_tag=b0003", "-", 0, chrom="NC_9")
    + row("CDS", 4951, 5000, "ID=cds-B;Parent=gene-b0003;locus_tag=b0003", "-", 0, chrom="NC_9")
    + row("gene", 700, 999, "ID=gene-b0470;gene=dnaX;locus_tag=b0470", chrom="NC_9")
    + row("CDS", 700, 999, "ID=cds-tau;Parent=gene-b0470;locus_tag=b0470;protein_id=NP_1", phase=0, chrom="NC_9")
    + row("CDS", 700, 870, "ID=cds-gamma;Parent=gene-b0470;locus_tag=b0470;protein_id=NP_2", phase=0, chrom="NC_9")
)

SGD = (
    "##gff-version 3\n#date 2021-04-21\n"
    + row("chromosome", 1, 9000, "ID=chrI;dbxref=NCBI:BK006935.2;Name=chrI", ".", chrom="chrI")
    + row(
        "gene", 335, 649, "ID=YAL069W;Name=YAL069W;Note=Dubious%20open%20reading%20frame%3B;dbxref=SGD:S2", chrom="chrI"
    )
    + row("CDS", 335, 649, "Parent=YAL069W_mRNA;Name=YAL069W_CDS;orf_classification=Dubious", phase=0, chrom="chrI")
    + row("mRNA", 335, 649, "ID=YAL069W_mRNA;Name=YAL069W_mRNA;Parent=YAL069W", chrom="chrI")
    + row("gene", 1000, 2000, "ID=YAL030W;Name=YAL030W;gene=SNC1;Alias=SNC1,SYB;Ontology_term=GO:0000001", chrom="chrI")
    + row("CDS", 1000, 1101, "Parent=YAL030W_mRNA;Name=YAL030W_CDS", phase=0, chrom="chrI")
    + row("intron", 1102, 1214, "Parent=YAL030W_mRNA;Name=YAL030W_intron", chrom="chrI")
    + row("CDS", 1215, 2000, "Parent=YAL030W_mRNA;Name=YAL030W_CDS", phase=0, chrom="chrI")
    + row("mRNA", 1000, 2000, "ID=YAL030W_mRNA;Name=YAL030W_mRNA;Parent=YAL030W", chrom="chrI")
    + row("transposable_element_gene", 3000, 5000, "ID=YAR009C;Name=YAR009C", "-", chrom="chrI")
    + row("CDS", 3000, 3900, "Parent=YAR009C;Name=YAR009C_CDS", "-", 0, chrom="chrI")
    + row("plus_1_translational_frameshift", 3901, 3901, "Parent=YAR009C", "-", chrom="chrI")
    + row("CDS", 3902, 5000, "Parent=YAR009C;Name=YAR009C_CDS", "-", 0, chrom="chrI")
    + "###\n##FASTA\n>chrI\nACGT\n"
)

BAKTA = (
    row("region", 1, 5000, "ID=contig_1;Name=contig_1;Is_circular=true", chrom="contig_1")
    + row(
        "CDS",
        100,
        399,
        "ID=ABC_00005;Name=Replication initiator, DnaA;locus_tag=ABC_00005;product=DnaA;gene=dnaA",
        phase=0,
        chrom="contig_1",
    )
    + row("CDS", 500, 799, "ID=ABC_00010;Name=hypothetical protein;locus_tag=ABC_00010", "-", 0, chrom="contig_1")
    + ">contig_1\nACGT\n"
)
