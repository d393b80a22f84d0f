/* residues.c: what a residue name means: its polymer, its one-letter code, its parent where modified.
 *
 * Source: the wwPDB Chemical Component Dictionary, items _chem_comp.mon_nstd_parent_comp_id and
 * one_letter_code, for the modified residues that occur often in the archive; names that force fields give to
 * protonation states and chain ends (AMBER, CHARMM) and to nucleotides before 2007 are added. A file's own MODRES
 * or _pdbx_struct_mod_residue records come on top (rows.c). */
#include "names.h"
#include <string.h>

typedef struct group {
    unsigned char polymer;
    char code;
    const char *standard;    /* one name, or "" */
    const char *others;      /* separated by blanks */
} group;

static const group groups[] = {
    {MF__AMINO, 'A', "ALA", "DAL AIB ABA ORN MAA"},
    {MF__AMINO, 'R', "ARG", "DAR AGM CIR OAR"},
    {MF__AMINO, 'N', "ASN", "DSG MEN SNN"},
    {MF__AMINO, 'D', "ASP", "DAS IAS PHD ASH BFD"},
    {MF__AMINO, 'C', "CYS", "DCY CSO CSD CME CSX OCS CSS SMC SCH CAS CAF CCS CSE CYM CYX HTI SCY SNC YCM"},
    {MF__AMINO, 'Q', "GLN", "DGN MEQ"},
    {MF__AMINO, 'E', "GLU", "DGL PCA CGU GLH"},
    {MF__AMINO, 'G', "GLY", "SAR GL3 CRO CRQ CR2 CH6 NRQ"},
    {MF__AMINO, 'H', "HIS", "DHI MHS HIC HIP HID HIE HSD HSE HSP NEP HSO"},
    {MF__AMINO, 'I', "ILE", "DIL"},
    {MF__AMINO, 'L', "LEU", "DLE MLE NLE MK8"},
    {MF__AMINO, 'K', "LYS", "DLY KCX MLY M3L MLZ ALY LLP FZN LYN KPI LYP"},
    {MF__AMINO, 'M', "MET", "MSE FME MHO MED CXM SME OMT"},
    {MF__AMINO, 'F', "PHE", "DPN MEA PHI PHL"},
    {MF__AMINO, 'P', "PRO", "DPR HYP HY3 DPL"},
    {MF__AMINO, 'S', "SER", "DSN SEP SAC OSE SVA OAS"},
    {MF__AMINO, 'T', "THR", "DTH TPO BMT ALO"},
    {MF__AMINO, 'W', "TRP", "DTR TRQ TRO TRX TTQ HTR HRP LTR TPL TOX 0AF"},
    {MF__AMINO, 'Y', "TYR", "DTY PTR TYS TPQ IYR TYI OMY OMZ"},
    {MF__AMINO, 'V', "VAL", "DVA MVA FVA NVA"},
    {MF__AMINO, 'U', "", "SEC"},
    {MF__AMINO, 'O', "", "PYL"},
    {MF__AMINO, 'X', "", "UNK ASX GLX GHP 3FG"},

    {MF__RNA, 'A', "A", "RA RA5 RA3 RAN A5 A3 1MA 2MA MIA T6A 6IA I6A A2M MA6 6MZ A23 12A RIA MTU"},
    {MF__RNA, 'C', "C", "RC RC5 RC3 RCN C5 C3 5MC OMC CCC 4OC CBV 5IC 4AC 10C"},
    {MF__RNA, 'G', "G", "RG RG5 RG3 RGN G5 G3 2MG M2G 7MG G7M OMG 1MG YYG YG OGX QUO PQ1 GTP GDP GAO G46 G48 1SC I"},
    {MF__RNA, 'U', "U", "RU RU5 RU3 RUN U5 U3 PSU 5MU H2U OMU 4SU 5BU IU FHU UR3 2MU 70U CNU DHU SUR UMS US5 ONE 125 126 127 "
                        "MNU CM0 PYO B8N"},
    {MF__RNA, 'X', "", "N"},
    {MF__DNA, 'A', "DA", "DA5 DA3 DAN 3DA ABR 6HA 6MC N6M"},
    {MF__DNA, 'C', "DC", "DC5 DC3 DCN 5CM 5HC CBR CFL DOC"},
    {MF__DNA, 'G', "DG", "DG5 DG3 8OG 6OG O6M BGM DDG G31 DI DIN"},
    {MF__DNA, 'T', "DT", "T DT5 DT3 DTN THY T5 T3 TTD 64T"},
    {MF__DNA, 'U', "DU", "BRU 5IU UFP"},
    {MF__DNA, 'X', "", "DN"},
    {MF__NUCLEIC, 'A', "", "ADE"},
    {MF__NUCLEIC, 'C', "", "CYT CYTO"},
    {MF__NUCLEIC, 'G', "", "GUA GUAN"},
    {MF__NUCLEIC, 'U', "", "URA URI"},

    {MF__CAP, 'X', "", "ACE NH2 NME FOR NMA BOC"},
    {MF__WATER, 'X', "", "HOH WAT DOD H2O TIP TIP3 TIP4 SOL SPC TP3 TIP5"},
};

static int listed(const char *list, const char *name, size_t length) {
    for (const char *p = list; (p = strstr(p, name)); p += length) {
        int opens = p == list || p[-1] == ' ', closes = p[length] == ' ' || p[length] == '\0';
        if (opens && closes) return 1;
    }
    return 0;
}

/* A scan of some kilobytes: callers ask once for each distinct name. */
mf__kind mf__residue_kind(const char *name) {
    size_t length = strlen(name);
    if (length == 0 || strchr(name, ' ')) return (mf__kind){MF__OTHER, 0, 'X'};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (strcmp(groups[i].standard, name) == 0) return (mf__kind){groups[i].polymer, 1, groups[i].code};
        if (listed(groups[i].others, name, length)) return (mf__kind){groups[i].polymer, 0, groups[i].code};
    }
    return (mf__kind){MF__OTHER, 0, 'X'};
}

const char *mf__standard_residue(int polymer, char code) {
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if (groups[i].polymer == polymer && groups[i].code == code && *groups[i].standard) return groups[i].standard;
    return NULL;
}
